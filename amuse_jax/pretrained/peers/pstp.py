"""Names of PSTP-Net's public class, `PSTP_Net`, for both of its variants here."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from amuse_jax.models.peers.pstp import PSTPConfig
from amuse_jax.pretrained.key_mapping import Table, dense, norm, rules
from amuse_jax.pretrained.peers import head

_STEM = [
    *dense('fc_a', 'audio'),
    *dense('fc_v', 'frames'),
    *dense('fc_word', 'words'),
    *head.attention('GlobalSelf_Module.layers.0.self_attn', 'encoder.attention'),
    *norm('GlobalSelf_Module.layers.0.norm1', 'encoder.norm'),
    *head.feed(
        *(f'GlobalSelf_Module.layers.0.{name}' for name in ('linear1', 'linear2', 'norm2')),
        'encoder.feed',
    ),
    *dense('fc_answer_pred', 'answer'),
]
_MODULES = [
    *dense('fc_p', 'patches'),
    *dense('TempSegsSelect_Module.clip_fc', 'segment'),
    *head.attention('TempSegsSelect_Module.attn_qst_query', 'choose_segments'),
    *head.attention('SpatRegsSelect_Module.attn_qst_query', 'choose_patches'),
    *head.attention('AudioGuidedVisualAttn.attn_audio_query', 'hear.attention'),
    *head.feed(
        'AudioGuidedVisualAttn.audio_query_linear1',
        'AudioGuidedVisualAttn.audio_query_linear2',
        'AudioGuidedVisualAttn.audio_query_visual_norm',
        'hear.feed',
    ),
    *head.attention('GlobalLocal_Module.layers.0.self_attn', 'exchange.attention'),
    *head.attention('GlobalLocal_Module.layers.0.cm_attn', 'exchange.cross'),
    *norm('GlobalLocal_Module.layers.0.norm1', 'exchange.norm'),
    *head.feed(
        *(f'GlobalLocal_Module.layers.0.{name}' for name in ('linear1', 'linear2', 'norm2')),
        'exchange.feed',
    ),
]
_NEVER = 'the released forward never uses it'
_DROPPED = 'the released forward computes it and overwrites the result'
_UNUSED = {
    r'(fc_spat_q|audio_fusion|visual_fusion|SM_fusion|fc_av_fusion)\.(weight|bias)': _NEVER,
    r'GlobalSelf_Module\.(layers\.0\.cm_attn|norm2)\..*': _NEVER,
    r'GlobalLocal_Module\.norm[12]\..*': _NEVER,
    r'TempSegsSelect_Module\.clip_attn\..*': _NEVER,
    r'SpatRegsSelect_Module\.patch_fc\..*': _NEVER,
    r'(TempSegsSelect|SpatRegsSelect)_Module\.qst_query_.*': (
        'computed and dropped: only the attention weights select segments and patches'
    ),
}
_MODULES_OVERWRITTEN = {
    r'fc_p\.(weight|bias)': _DROPPED,
    r'(TempSegsSelect_Module|SpatRegsSelect_Module|GlobalLocal_Module)\..*': _DROPPED,
    r'AudioGuidedVisualAttn\..*': _DROPPED,
}


def read_released(config: PSTPConfig, arrays: Mapping[str, np.ndarray]) -> tuple[PSTPConfig, Table]:
    """Return the config of a file for PSTPReleased, and the table of its names.

    The question encoder is an option of the public class; it is taken from the file.
    """
    config, rows = _question(config, arrays)
    return config, Table(tuple(rules(_STEM + rows)), _UNUSED | _MODULES_OVERWRITTEN)


def read_paper(config: PSTPConfig, arrays: Mapping[str, np.ndarray]) -> tuple[PSTPConfig, Table]:
    """Return the config of a file for PSTPPaper, and the table of its names."""
    config, rows = _question(config, arrays)
    return config, Table(tuple(rules(_STEM + _MODULES + rows)), _UNUSED)


def _question(config, arrays):
    sizes = {
        'vocabulary': head.rows(arrays, 'fc_q.word2vec.weight', 0),
        'answers': head.rows(arrays, 'fc_answer_pred.weight', config.answers),
        'width': head.rows(arrays, 'fc_a.weight', config.width),
    }
    for name, layer in (('audio_width', 'fc_a.weight'), ('clip_width', 'fc_v.weight')):
        if np.ndim(arrays.get(layer)) == 2:
            sizes[name] = arrays[layer].shape[1]
    is_lstm = sizes['vocabulary'] > 0
    rows = head.question('fc_q', 'question') if is_lstm else dense('fc_q', 'question')
    return dataclasses.replace(config, **sizes), rows
