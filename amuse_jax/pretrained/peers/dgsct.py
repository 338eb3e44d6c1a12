"""Names of DG-SCT's public class for MUSIC-AVQA."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from amuse_jax.models.peers.dgsct import DGSCTConfig
from amuse_jax.pretrained import htsat, swin_v2
from amuse_jax.pretrained.key_mapping import Row, Table, dense, rules, same
from amuse_jax.pretrained.peers import adapters, head

_PROJECTION = [*dense('fc_a1', 'projection.inner'), *dense('fc_a2', 'projection.outer')]


def _mix(arrays: list[np.ndarray]) -> np.ndarray:
    """Turn a 1x1 convolution over tokens into a kernel: (out, in, 1, 1) -> (in, out)."""
    weight = same(arrays)
    return weight.reshape(len(weight), -1).T


_GUIDE = [
    Row(('conv_adapter.weight',), 'mix.kernel', _mix),
    Row(('conv_adapter.bias',), 'mix.bias', same),
    *dense('fc', 'project'),
    *dense('fc_affine_audio_1', 'other_channels'),
    *dense('fc_affine_video_1', 'own_channels'),
    *dense('fc_affine_bottleneck', 'channel_inner'),
    *dense('fc_affine_v_c_att', 'channel_outer'),
    *dense('fc_affine_video_2', 'own_positions'),
    *dense('fc_affine_audio_2', 'other_positions'),
    *dense('fc_affine_v_s_att', 'position'),
]


def adapter(groups: int, has_gate: bool) -> list[Row]:
    """Return the rows of an adapter; arguments are those of `adapters.bottleneck`."""
    return _GUIDE + adapters.bottleneck(groups, has_gate)


def read(config: DGSCTConfig, arrays: Mapping[str, np.ndarray]) -> tuple[DGSCTConfig, Table]:
    """Return the config of a file and the table of its names.

    Latents, reduction, groups and the audio adapters' gates are options of the public class; they
    are taken from the file.
    """
    sizes = dataclasses.replace(
        config.adapter,
        audio_gate=f'{adapters.FIRST}gate' in arrays,
        **adapters.sizes_of(arrays, config.audio.width),
    )
    config = dataclasses.replace(config, head=head.config_of(config.head, arrays), adapter=sizes)
    towers = [
        adapters.under(
            swin_v2.timm(config.visual, set(adapters.without(arrays, 'swin.'))), 'swin.', 'visual.'
        ),
        adapters.under(htsat.original(config.audio), 'htsat.', 'audio.'),
    ]
    more = rules(_PROJECTION) + rules(head.HEAD, '', 'head.')
    for source, target in adapters.LISTS.items():
        rows = adapter(sizes.groups, sizes.audio_gate or source.startswith('vis'))
        for place in range(sum(config.audio.depths)):
            more += rules(rows, f'{source}.{place}.', f'adapters.{place}.{target}.')
    return config, adapters.joined(towers, more, head.IGNORED)
