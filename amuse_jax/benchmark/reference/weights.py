"""Conversion of the reference's weights to amuse_jax.

Both sides hold the same parameters under the same names, with two exceptions: the frameworks' own
names (PyTorch's weight is a kernel or a scale), and stacks of equal blocks (a list in PyTorch, a
leading axis in amuse_jax). The towers use the tables of public checkpoints.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from flax import nnx
from ml_collections import ConfigDict
from torch import nn

from amuse_jax.benchmark.reference import towers
from amuse_jax.models.htsat import HTSATConfig
from amuse_jax.models.swin_v2 import SwinV2Config
from amuse_jax.models.text import TextConfig
from amuse_jax.parsing import parse_trainable
from amuse_jax.pretrained import bert, htsat, key_mapping, swin_v2
from amuse_jax.pretrained.key_mapping import Rule, Table, linear, same

_PARTS = {towers.VisualTower: 'visual', towers.AudioTower: 'audio', towers.TextTower: 'text'}
# Lists that become a leading axis; those inside the towers are in the towers' tables.
_STACKS = re.compile(r'(.*\b(?:adapters|layers))\.\d+\.(.*)')
_PAIRS = re.compile(r'(pairs)\.\d+\.(.*)')
_STATISTICS = {'running_mean': 'mean', 'running_var': 'variance'}


def fill(model: nnx.Module, reference: nn.Module, config: ConfigDict) -> nnx.Module:
    """Return the model with the reference's weights.

    Args:
      model: the model's structure and shapes, from `nnx.eval_shape`.
      reference: Amuse, UniversalEncoder, Adapters or a tower.
      config: the sizes.

    Raises:
      ConversionError: an array of one side has no counterpart of the same shape on the other side.
    """
    return key_mapping.fill(model, towers.state_arrays(reference), table(reference, config))


def set_trainable(
    reference: nn.Module,
    table: Table,
    trainable: str,
    source_name: Callable[[str], str] = str,
) -> list[nn.Parameter]:
    """Make only some parameters of the reference trainable, and return them.

    Args:
      reference: the model.
      table: the table that maps its arrays to amuse_jax.
      trainable: see parsing.parse_trainable; the names are those in amuse_jax.
      source_name: returns the name in the table of a parameter of the reference.
    """
    targets = {
        source: rule.target for rule in table.rules for group in rule.sources for source in group
    }
    pattern = parse_trainable(trainable)
    for name, parameter in reference.named_parameters():
        parameter.requires_grad_(bool(pattern.search(targets[source_name(name)])))
    return [parameter for parameter in reference.parameters() if parameter.requires_grad]


def table(reference: nn.Module, config: ConfigDict) -> Table:
    """Return the table that maps every array of the reference to amuse_jax."""
    arrays = towers.state_arrays(reference)
    rules, ignored = [], {r'.*num_batches_tracked': 'counts training steps'}
    tower_prefixes: list[str] = []
    for path, module in reference.named_modules():
        if type(module) in _PARTS:
            prefix = f'{path}.' if path else ''
            own = {n.removeprefix(prefix): x for n, x in arrays.items() if n.startswith(prefix)}
            converted = tower_table(config, _PARTS[type(module)], own)
            rules += [_add_prefix(rule, prefix) for rule in converted.rules]
            for pattern, reason in converted.ignored.items():
                ignored[f'{re.escape(prefix)}(?:{pattern})'] = reason
            tower_prefixes.append(prefix)
    for path, module in reference.named_modules():
        if not any(f'{path}.'.startswith(prefix) for prefix in tower_prefixes):
            rules += _module_rules(path, module)
    return Table(tuple(_stack(_stack(rules, _STACKS), _PAIRS)), ignored)


def tower_sizes(config: ConfigDict, part: str, vocab_size: int = 0):
    """Return the model config of the tower `part`."""
    sizes = config.model[part].to_dict()
    if part == 'visual':
        return SwinV2Config(**sizes)
    if part == 'audio':
        return HTSATConfig(mels=config.audio.mels, **sizes)
    del sizes['tokenizer']
    return TextConfig(vocab_size=vocab_size, **sizes)


def tower_table(config: ConfigDict, part: str, arrays: Mapping[str, np.ndarray]) -> Table:
    """Return the table for public checkpoints of the tower `part`."""
    tables = {'visual': swin_v2.table, 'audio': htsat.table, 'text': bert.table}
    return tables[part](tower_sizes(config, part), arrays)


def _module_rules(path: str, module: nn.Module) -> list[Rule]:
    """Return the rules for a module's own parameters and statistics, without its submodules."""
    is_linear = isinstance(module, nn.Linear)
    is_norm = isinstance(module, nn.LayerNorm | nn.BatchNorm1d)
    names = _STATISTICS | {'weight': 'kernel' if is_linear else 'scale'}
    held = [name for name, _ in module.named_parameters(recurse=False)]
    held += _STATISTICS if isinstance(module, nn.BatchNorm1d) else ()
    prefix = f'{path}.' if path else ''
    return [
        Rule(
            prefix + (names.get(name, name) if is_linear or is_norm else name),
            ((prefix + name,),),
            linear if is_linear and name == 'weight' else same,
        )
        for name in held
    ]


def _add_prefix(rule: Rule, prefix: str) -> Rule:
    sources = tuple(tuple(prefix + name for name in group) for group in rule.sources)
    return dataclasses.replace(rule, target=prefix + rule.target, sources=sources)


def _stack(rules: Iterable[Rule], pattern: re.Pattern) -> list[Rule]:
    """Join rules whose targets differ only in a list index.

    The results of joined rules are stacked along a new first axis, in order.
    """
    groups: dict[str, list[Rule]] = {}
    others = []
    for rule in rules:
        match = pattern.fullmatch(rule.target)
        if match:
            groups.setdefault(f'{match[1]}.{match[2]}', []).append(rule)
        else:
            others.append(rule)
    return others + [_join(target, group) for target, group in groups.items()]


def _join(target: str, rules: list[Rule]) -> Rule:
    """Return one rule that stacks the results of several rules of the same kind."""
    first = rules[0]
    names = [tuple(name for group in rule.sources for name in group) for rule in rules]

    def op(arrays: list[np.ndarray]) -> np.ndarray:
        size = len(first.sources[0])
        parts = [first.op(arrays[start : start + size]) for start in range(0, len(arrays), size)]
        return np.stack(parts) if first.stacked else same(parts)

    return Rule(target, tuple(names), op, stacked=True)
