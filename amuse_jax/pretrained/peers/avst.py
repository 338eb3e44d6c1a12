"""Names of AVST's two public classes, `AVQA_Fusion_Net` and `AVQA_AVatt_Grounding`."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from amuse_jax.models.peers.avst import AVSTConfig
from amuse_jax.pretrained.key_mapping import Table, dense, rules
from amuse_jax.pretrained.peers import head

_AUDIO = [*dense('fc_a1', 'audio.inner'), *dense('fc_a2', 'audio.outer')]
_RESNET = {r'visual_net\..*': 'the ResNet-18 runs beforehand; its maps are inputs'}


def read(config: AVSTConfig, arrays: Mapping[str, np.ndarray]) -> tuple[AVSTConfig, Table]:
    """Return the config of a file of `AVQA_Fusion_Net` and the table of its names."""
    table = Table(tuple(rules(_AUDIO) + rules(head.HEAD, '', 'head.')), head.IGNORED | _RESNET)
    return _config_of(config, arrays), table


def read_grounding(
    config: AVSTConfig, arrays: Mapping[str, np.ndarray]
) -> tuple[AVSTConfig, Table]:
    """Return the config of a file of `AVQA_AVatt_Grounding` and the table of its names."""
    return _config_of(config, arrays), Table(tuple(rules(_AUDIO + head.GROUNDING)), _RESNET)


def _config_of(config, arrays):
    audio = arrays.get('fc_a1.weight', np.empty((0, config.audio_width)))
    return dataclasses.replace(
        config, head=head.config_of(config.head, arrays), audio_width=audio.shape[-1]
    )
