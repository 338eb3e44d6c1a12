"""Names of LAVISH's public class for MUSIC-AVQA."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from amuse_jax.models.peers.lavish import AdapterConfig, LAVISHConfig
from amuse_jax.pretrained import swin_v2
from amuse_jax.pretrained.key_mapping import Row, Table, dense, norm, rules, same
from amuse_jax.pretrained.peers import adapters, head

_PROJECTIONS = [
    *dense('yb_fc_v', 'visual_out'),
    *dense('yb_fc_a', 'audio_out'),
    *dense('fc_a2', 'audio'),
]
_IGNORED = head.IGNORED | {
    r'fc_a1\.(weight|bias)': 'the released forward skips it',
    r'.*\.num_batches_tracked': 'counts training steps',
}


def read(config: LAVISHConfig, arrays: Mapping[str, np.ndarray]) -> tuple[LAVISHConfig, Table]:
    """Return the config of a file and the table of its names.

    Latents, reduction, groups, batch norms and the audio adapters' gates are options of the public
    class; they are taken from the file.
    """
    first = adapters.FIRST
    adapter = dataclasses.replace(
        config.adapter,
        audio_gate=f'{first}gate' in arrays,
        batch_norm=f'{first}bn1.weight' in arrays,
        **adapters.sizes_of(arrays, config.swin.width),
    )
    config = dataclasses.replace(config, head=head.config_of(config.head, arrays), adapter=adapter)
    tower = swin_v2.timm(config.swin, set(adapters.without(arrays, 'swin.')))
    more = rules(_PROJECTIONS) + rules(head.HEAD, '', 'head.')
    for source, target in adapters.LISTS.items():
        has_gate = adapter.audio_gate or source.startswith('vis')
        rows = adapter_rows(adapter, has_gate)
        for place in range(sum(config.swin.depths)):
            more += rules(rows, f'{source}.{place}.', f'adapters.{place}.{target}.')
    return config, adapters.joined([adapters.under(tower, 'swin.', 'swin.')], more, _IGNORED)


def adapter_rows(config: AdapterConfig, has_gate: bool) -> list[Row]:
    """Return the rows of an adapter; `has_gate` says whether it has a gate."""
    rows = adapters.bottleneck(config.groups, has_gate)
    if config.batch_norm:
        rows += [*_batch_norm('bn1', 'down_norm'), *_batch_norm('bn2', 'up_norm')]
    return rows


def _batch_norm(source: str, target: str) -> list[Row]:
    return [
        *norm(source, target),
        Row((f'{source}.running_mean',), f'{target}.mean', same),
        Row((f'{source}.running_var',), f'{target}.variance', same),
    ]
