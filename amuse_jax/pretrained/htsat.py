"""Names of HTS-AT checkpoints: the original release and Hugging Face's CLAP."""

from collections.abc import Iterable

import numpy as np

from amuse_jax.models.htsat import HTSATConfig
from amuse_jax.pretrained.key_mapping import Row, Table, dense, linear, norm, patches, rules, same

_CONSTANTS = {
    r'.*\.relative_position_index': 'follows from the window',
    r'.*\.attn_mask': 'follows from the window',
    r'.*\.num_batches_tracked': 'counts training steps',
}
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
    """The table of the naming that a checkpoint follows, told by its names.

    Args:
      config: of the tower.
      names: of the checkpoint's arrays.
      tagger: whether the model is an HTSATTagger; else a head is ignored.
    """
    if any(name.startswith(('audio_encoder.', 'audio_model.')) for name in names):
        return clap(config, names)
    return original(config, tagger)


def original(config: HTSATConfig, tagger: bool = False) -> Table:
    """Names of the released `HTSAT_Swin_Transformer`, a Lightning file's prefix `sed_model.` taken
    off already (see files.read)."""
    tower = 'tower.' if tagger else ''
    made = rules(_PATCHES + _mel_norm('bn0'), '', tower)
    made += _stages(config, '', tower, _BLOCK)
    ignored = _CONSTANTS | {
        r'spectrogram_extractor\..*': 'the front end is computed, see media/log_mel.py',
        r'logmel_extractor\..*': 'the front end is computed, see media/log_mel.py',
        r'head\.(weight|bias)': 'the original never uses it: tscam_conv gives the classes',
    }
    if tagger:
        made += rules(
            [
                Row(('tscam_conv.weight',), 'head.kernel', _convolution),
                Row(('tscam_conv.bias',), 'head.bias', same),
            ]
        )
    else:
        ignored |= {r'tscam_conv\..*': 'the tower gives features, no classes'}
    return Table(tuple(made), ignored)


def clap(config: HTSATConfig, names: Iterable[str]) -> Table:
    """Names of `ClapAudioModel`, and of `ClapModel`, whose text half is ignored."""
    outer = 'audio_model.' if any(name.startswith('audio_model.') for name in names) else ''
    root = f'{outer}audio_encoder.'
    made = rules(_PATCHES + _mel_norm('batch_norm'), root)
    made += _stages(config, root, '', _CLAP_BLOCK)
    ignored = _CONSTANTS | {
        rf'{root}patch_embed\.(fusion_model|mel_conv2d)\..*': (
            'of fused inputs; a sound of at most 10 s, as here, never enters them'
        ),
        r'(audio_projection|text_projection|text_model|logit_scale).*': 'pairs sound with text',
    }
    return Table(tuple(made), ignored)


def _mel_norm(theirs: str) -> list[Row]:
    return [
        *norm(theirs, 'mel_norm'),
        Row((f'{theirs}.running_mean',), 'mel_norm.mean', same),
        Row((f'{theirs}.running_var',), 'mel_norm.variance', same),
    ]


def _stages(config: HTSATConfig, root: str, tower: str, block: list[Row]) -> list:
    """Both namings merge at the end of a stage, we at the start of the next."""
    made = []
    for stage, depth in enumerate(config.depths):
        theirs, ours = f'{root}layers.{stage}.', f'{tower}stages.{stage}.'
        made += rules(block, theirs + 'blocks.{}.', ours + 'blocks.', depth)
        if stage:
            made += rules(_MERGING, f'{root}layers.{stage - 1}.downsample.', ours + 'merge.')
    return made


def _convolution(arrays: list[np.ndarray]) -> np.ndarray:
    """(out, in, rows, 3) -> (3 * rows * in, out): taps in time, then rows of mel, then channels."""
    kernel = same(arrays)
    return kernel.transpose(3, 2, 1, 0).reshape(-1, len(kernel))
