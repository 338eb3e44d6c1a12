"""Names of the adapters of LAVISH and DG-SCT, and of their towers."""

import dataclasses
import re
from collections.abc import Iterable, Mapping

import numpy as np

from amuse_jax.pretrained.key_mapping import Op, Row, Rule, Table, norm, same

LISTS = {  # of the public classes -> of a BlockAdapters
    'audio_adapter_blocks_p1': 'audio_first',
    'vis_adapter_blocks_p1': 'visual_first',
    'audio_adapter_blocks_p2': 'audio_second',
    'vis_adapter_blocks_p2': 'visual_second',
}
FIRST = 'audio_adapter_blocks_p1.0.'


def bottleneck(groups: int, has_gate: bool) -> list[Row]:
    """Return the rows that the adapters of both systems have.

    Args:
      groups: groups of their 1x1 convolutions.
      has_gate: whether the adapter has a gate.
    """
    gate = [Row(('gate',), 'gate', same)] if has_gate else []
    return [
        *gate,
        Row(('my_tokens',), 'latents', same),
        Row(('gate_av',), 'exchange_gate', same),
        Row(('down_sampler.weight',), 'down.kernel', grouped(groups)),
        Row(('up_sampler.weight',), 'up.kernel', grouped(groups)),
        *norm('ln_before', 'norm_before'),
        *norm('ln_post', 'norm_after'),
    ]


def grouped(groups: int) -> Op:
    """Return the conversion of grouped 1x1 convolutions: (out, in / g, 1, 1) -> (g, in, out)."""

    def convert(arrays: list[np.ndarray]) -> np.ndarray:
        weight = same(arrays)
        return weight.reshape(groups, len(weight) // groups, -1).transpose(0, 2, 1)

    return convert


def under(table: Table, source: str, target: str) -> Table:
    """Return a tower's table with prefixes before the names in the file and in the model."""
    rules = (
        dataclasses.replace(
            rule,
            target=target + rule.target,
            sources=tuple(tuple(source + name for name in group) for group in rule.sources),
        )
        for rule in table.rules
    )
    return Table(
        tuple(rules), {re.escape(source) + name: why for name, why in table.ignored.items()}
    )


def without(arrays: Iterable[str], prefix: str) -> list[str]:
    """Return the names that begin with the prefix, without it."""
    return [name.removeprefix(prefix) for name in arrays if name.startswith(prefix)]


def joined(tables: Iterable[Table], more: Iterable[Rule], ignored: Mapping[str, str]) -> Table:
    """Return one table of the rules and ignored names of several."""
    tables = list(tables)
    rules = [rule for table in tables for rule in table.rules]
    return Table(
        (*rules, *more),
        {k: v for table in tables for k, v in table.ignored.items()} | dict(ignored),
    )


def sizes_of(arrays: Mapping[str, np.ndarray], width: int) -> dict[str, int]:
    """Return latents, reduction and groups by the first adapter's shapes.

    Args:
      arrays: the arrays of a file.
      width: channels of the first adapter.

    Returns:
      The sizes by name; {} if there is no such adapter, or its shapes are not those of one.
    """
    tokens, down = (arrays.get(FIRST + name) for name in ('my_tokens', 'down_sampler.weight'))
    if np.ndim(tokens) != 2 or np.ndim(down) != 4:
        return {}
    hidden, share = down.shape[:2]
    if not hidden or not share or width % hidden or width % share or hidden % (width // share):
        return {}
    return {'latents': len(tokens), 'reduction': width // hidden, 'groups': width // share}
