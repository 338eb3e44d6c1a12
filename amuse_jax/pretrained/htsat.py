"""Tables that translate the names in HTS-AT checkpoints into parameters.

The checkpoints are the original release, CLAP from Hugging Face, and LAION's own files of CLAP.
"""

import dataclasses
import re
from collections.abc import Iterable

import numpy as np

from amuse_jax.models.htsat import HTSATConfig
from amuse_jax.pretrained.key_mapping import (
    ConversionError,
    Row,
    Table,
    dense,
    linear,
    norm,
    patches,
    rules,
    same,
)

_CONSTANTS = {
    r'.*\.relative_position_index': 'constant, follows from the window size',
    r'.*\.attn_mask': 'constant, follows from the window size',
    r'.*\.num_batches_tracked': 'counts training steps',
}
_FUSED = 'only for fused inputs; a sound of at most 10 s, as here, does not use them'
_PAIRS = 'pairs sound with text'
_LAION = 'audio_branch.'  # prefix of HTS-AT in LAION's files
_MERGING = [
    *norm('norm', 'norm'),
    Row(('reduction.weight',), 'reduction.kernel', linear),
]
_PATCHES = [
    Row(('patch_embed.proj.weight',), 'patches.projection.kernel', patches),
    Row(('patch_embed.proj.bias',), 'patches.projection.bias', same),
    *norm('patch_embed.norm', 'patches.norm'),
    *norm('norm', 'norm'),
]

_CLAP_BLOCK = [
    *norm('layernorm_before', 'attention_norm'),
    *dense([f'attention.self.{part}' for part in ('query', 'key', 'value')], 'attention.qkv'),
    Row(('attention.self.relative_position_bias_table',), 'attention.bias_table', same),
    *dense('attention.output.dense', 'attention.out'),
    *norm('layernorm_after', 'mlp_norm'),
    *dense('intermediate.dense', 'mlp.inner'),
    *dense('output.dense', 'mlp.outer'),
]
_BLOCK = [
    *norm('norm1', 'attention_norm'),
    *dense('attn.qkv', 'attention.qkv'),
    Row(('attn.relative_position_bias_table',), 'attention.bias_table', same),
    *dense('attn.proj', 'attention.out'),
    *norm('norm2', 'mlp_norm'),
    *dense('mlp.fc1', 'mlp.inner'),
    *dense('mlp.fc2', 'mlp.outer'),
]


def table(config: HTSATConfig, names: Iterable[str], tagger: bool = False) -> Table:
    """Return the table for the original release or for CLAP, from Hugging Face or from LAION.

    Args:
      config: the tower's sizes.
      names: the names of the checkpoint's arrays; they decide which table is used.
      tagger: whether the model is an HTSATTagger; if not, the checkpoint's head is ignored.

    Raises:
      ConversionError: the model is an HTSATTagger, and the checkpoint is CLAP.
    """
    is_hub_clap = any(name.startswith(('audio_encoder.', 'audio_model.')) for name in names)
    is_laions = any(name.startswith(_LAION) for name in names)
    if tagger and (is_hub_clap or is_laions):
        raise ConversionError(
            'the checkpoint is CLAP, which predicts no classes, so it cannot be a tagger; take '
            "HTS-AT's AudioSet checkpoint (HTSAT_AudioSet_Saved_1.ckpt)"
        )
    if is_hub_clap:
        return clap(config, names)
    if is_laions:
        return laion(config)
    return original(config, tagger)


def laion(config: HTSATConfig) -> Table:
    """Return the table for LAION's own files of CLAP, such as 630k-audioset-best.pt.

    They hold the released `HTSAT_Swin_Transformer` under a prefix, beside the text part. Their
    class head is not used: CLAP does not train it.

    Args:
      config: the tower's sizes.
    """
    tower = original(config)
    all_rules = [
        dataclasses.replace(
            rule, sources=tuple(tuple(_LAION + name for name in group) for group in rule.sources)
        )
        for rule in tower.rules
    ]
    ignored = {
        # The patterns that begin with .* stand for any stage of the tower.
        (pattern if pattern.startswith('.*') else re.escape(_LAION) + pattern): reason
        for pattern, reason in tower.ignored.items()
    }
    ignored |= {
        rf'{re.escape(_LAION)}patch_embed\.(fusion_model|mel_conv2d)\..*': _FUSED,
        r'(text|audio)_(transform|projection)\..*|text_branch\..*': _PAIRS,
        r'logit_scale_[at]': _PAIRS,
    }
    return Table(tuple(all_rules), ignored)


def original(config: HTSATConfig, tagger: bool = False) -> Table:
    """Return the table for the released `HTSAT_Swin_Transformer`.

    `files.read` has already removed the prefix `sed_model.` of a Lightning file.

    Args:
      config: the tower's sizes.
      tagger: whether the model is an HTSATTagger; if not, the checkpoint's head is ignored.
    """
    tower = 'tower.' if tagger else ''
    all_rules = rules(_PATCHES + _mel_norm('bn0'), '', tower)
    all_rules += _stages(config, '', tower, _BLOCK)
    ignored = _CONSTANTS | {
        r'spectrogram_extractor\..*': 'constant, the front end is media/log_mel.py',
        r'logmel_extractor\..*': 'constant, the front end is media/log_mel.py',
        r'head\.(weight|bias)': 'the original never uses it: tscam_conv predicts the classes',
    }
    if tagger:
        all_rules += rules(
            [
                Row(('tscam_conv.weight',), 'head.kernel', _convolution),
                Row(('tscam_conv.bias',), 'head.bias', same),
            ]
        )
    else:
        ignored |= {r'tscam_conv\..*': 'the tower returns features, not classes'}
    return Table(tuple(all_rules), ignored)


def clap(config: HTSATConfig, names: Iterable[str]) -> Table:
    """Return the table for `ClapAudioModel` or `ClapModel`; the text part of the latter is ignored.

    Args:
      config: the tower's sizes.
      names: the names of the checkpoint's arrays.
    """
    outer = 'audio_model.' if any(name.startswith('audio_model.') for name in names) else ''
    root = f'{outer}audio_encoder.'
    all_rules = rules(_PATCHES + _mel_norm('batch_norm'), root)
    all_rules += _stages(config, root, '', _CLAP_BLOCK)
    ignored = _CONSTANTS | {
        rf'{root}patch_embed\.(fusion_model|mel_conv2d)\..*': _FUSED,
        r'(audio_projection|text_projection|text_model|logit_scale).*': _PAIRS,
    }
    return Table(tuple(all_rules), ignored)


def _mel_norm(source: str) -> list[Row]:
    return [
        *norm(source, 'mel_norm'),
        Row((f'{source}.running_mean',), 'mel_norm.mean', same),
        Row((f'{source}.running_var',), 'mel_norm.variance', same),
    ]


def _stages(config: HTSATConfig, root: str, tower: str, block: list[Row]) -> list:
    """Return the rules of all stages.

    Both checkpoints merge patches at the end of a stage; this model does so at the start of the
    next stage.
    """
    stage_rules = []
    for stage, depth in enumerate(config.depths):
        source, target = f'{root}layers.{stage}.', f'{tower}stages.{stage}.'
        stage_rules += rules(block, source + 'blocks.{}.', target + 'blocks.', depth)
        if stage:
            merging = f'{root}layers.{stage - 1}.downsample.'
            stage_rules += rules(_MERGING, merging, target + 'merge.')
    return stage_rules


def _convolution(arrays: list[np.ndarray]) -> np.ndarray:
    """Flatten the kernel of a convolution over time into the matrix of a linear layer.

    (out, in, rows, 3) -> (3 * rows * in, out), ordered by tap in time, row of mel, channel.
    """
    kernel = same(arrays)
    return kernel.transpose(3, 2, 1, 0).reshape(-1, len(kernel))
