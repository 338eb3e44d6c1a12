"""Tables that translate the names in Swin-V2 checkpoints into parameters, and a loader.

The checkpoints may come from Hugging Face, timm or the original release.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from amuse_jax.errors import StageError
from amuse_jax.models.swin_v2 import SwinV2, SwinV2Classifier, SwinV2Config
from amuse_jax.pretrained import files
from amuse_jax.pretrained.key_mapping import (
    Row,
    Table,
    dense,
    fill,
    flat,
    linear,
    norm,
    patches,
    rules,
    same,  # fmt: skip
)

_CONSTANTS = {
    r'.*\.attn_mask': 'constant, follows from the window size',
    r'.*\.relative_position_index': 'constant, follows from the window size',
    r'.*\.relative_coords_table': 'constant, follows from the window size',
}
# Of timm, of the original release and on the hub (with hyphens): the windows, then the pixels, each
# before and after fine-tuning.
_NAME = re.compile(r'swinv2_[a-z]+(?:_patch4)?_window(?:(\d+)to)?(\d+)_(?:(\d+)to)?(\d+)')
_MERGING = [
    Row(('reduction.weight',), 'reduction.kernel', linear),
    *norm('norm', 'norm'),
]

_HF_ATTENTION = 'attention.self.'
_HF_BIAS = _HF_ATTENTION + 'continuous_position_bias_mlp.'
_HF_STEM = [
    Row(('embeddings.patch_embeddings.projection.weight',), 'patches.projection.kernel', patches),
    Row(('embeddings.patch_embeddings.projection.bias',), 'patches.projection.bias', same),
    *norm('embeddings.norm', 'patches.norm'),
    *norm('layernorm', 'norm'),
]
_HF_BLOCK = [
    Row(
        tuple(f'{_HF_ATTENTION}{part}.weight' for part in ('query', 'key', 'value')),
        'attention.qkv.kernel',
        linear,
    ),
    Row((f'{_HF_ATTENTION}query.bias',), 'attention.query_bias', same),
    Row((f'{_HF_ATTENTION}value.bias',), 'attention.value_bias', same),
    Row((f'{_HF_ATTENTION}logit_scale',), 'attention.logit_scale', flat),
    *dense(f'{_HF_BIAS}0', 'attention.bias_inner'),
    Row((f'{_HF_BIAS}2.weight',), 'attention.bias_outer.kernel', linear),
    *dense('attention.output.dense', 'attention.out'),
    # Swin-V2 has res-post-norm, but the names still say before and after, as in Swin.
    *norm('layernorm_before', 'attention_norm'),
    *dense('intermediate.dense', 'mlp.inner'),
    *dense('output.dense', 'mlp.outer'),
    *norm('layernorm_after', 'mlp_norm'),
]

_STEM = [
    Row(('patch_embed.proj.weight',), 'patches.projection.kernel', patches),
    Row(('patch_embed.proj.bias',), 'patches.projection.bias', same),
    *norm('patch_embed.norm', 'patches.norm'),
    *norm('norm', 'norm'),
]
_BLOCK = [
    Row(('attn.qkv.weight',), 'attention.qkv.kernel', linear),
    Row(('attn.q_bias',), 'attention.query_bias', same),
    Row(('attn.v_bias',), 'attention.value_bias', same),
    Row(('attn.logit_scale',), 'attention.logit_scale', flat),
    *dense('attn.cpb_mlp.0', 'attention.bias_inner'),
    Row(('attn.cpb_mlp.2.weight',), 'attention.bias_outer.kernel', linear),
    *dense('attn.proj', 'attention.out'),
    *norm('norm1', 'attention_norm'),
    *dense('mlp.fc1', 'mlp.inner'),
    *dense('mlp.fc2', 'mlp.outer'),
    *norm('norm2', 'mlp_norm'),
]


def load(source: str, config: SwinV2Config, classes: int = 0) -> SwinV2 | SwinV2Classifier:
    """Load a published Swin-V2.

    Args:
      source: a hub name, such as timm/swinv2_large_window12_192.ms_in22k, or a file (files.read).
      config: its sizes, such as swin_v2.named('swinv2_large_window12_192').
      classes: number of classes of its head; 0: load the tower without its head.

    Raises:
      StageError: the checkpoint cannot be read, or its position bias was trained with other
        windows than `config` says.
      ConversionError: the checkpoint has other sizes.
    """
    arrays = read(source, config)

    def build():
        if classes:
            return SwinV2Classifier(config, classes, rngs=nnx.Rngs(0))
        return SwinV2(config, rngs=nnx.Rngs(0))

    return fill(nnx.eval_shape(build), arrays, table(config, arrays, bool(classes)))


def read(source: str, config: SwinV2Config) -> dict[str, np.ndarray]:
    """Read the arrays of a checkpoint by name; arguments and errors are those of `load`."""
    check_windows(config, source, stated_windows(source, files.description(source)))
    return files.read(source)


def check_windows(config: SwinV2Config, source: str, trained: tuple[int, ...]) -> None:
    """Refuse a config that names other windows than the checkpoint was trained with.

    Args:
      config: the tower's sizes.
      source: the checkpoint's hub name or path, for the message.
      trained: the checkpoint's windows in the four stages, from `stated_windows`; () if they are
        unknown, and then nothing is checked.

    Raises:
      StageError: the windows differ.
    """
    if trained and any(windows != trained for windows in config.trained_windows):
        raise StageError(
            f'the position bias of {source} was trained with windows of '
            f'{", ".join(map(str, trained))} tokens in its four stages, but the config says '
            f'{", ".join(map(str, config.trained_windows[0]))}; set '
            f'--config.model.visual.pretrained_windows="{trained}"'
        )


def stated_windows(source: str, description: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the windows that a checkpoint's position bias was trained with, () if nothing says so.

    No array shows them. They are taken from config.json, or from a published name, such as
    swinv2_large_window12to24_192to384.

    Args:
      source: the checkpoint's hub name or path.
      description: its config.json; {} if there is none.
    """
    return _windows_of(description) or _windows_of_name(Path(source).name)


def _windows_of(description: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the windows that a config.json of Hugging Face or timm names; () if it names none."""
    if isinstance(description.get('architecture'), str):
        return _windows_of_name(description['architecture'])
    if description.get('model_type') != 'swinv2':
        return ()
    try:
        sizes = SwinV2Config(
            image_size=int(description['image_size']),
            patch=int(description['patch_size']),
            width=int(description['embed_dim']),
            depths=tuple(description['depths']),
            heads=tuple(description['num_heads']),
            window=int(description['window_size']),
            pretrained_windows=tuple(map(int, description['pretrained_window_sizes'])),
        )
    except (KeyError, TypeError, ValueError):
        return ()
    return sizes.trained_windows[0]


def _windows_of_name(name: str) -> tuple[int, ...]:
    """Return the windows that a published name states; () if it is no name of a Swin-V2.

    The last stages have smaller windows where their map is smaller.
    """
    found = _NAME.search(name.lower().replace('-', '_'))
    if not found:
        return ()
    before, window, pixels_before, pixels = found.groups()
    window, pixels = int(before or window), int(pixels_before or pixels)
    return tuple(min(window, pixels // 4 >> stage) for stage in range(4))


def table(config: SwinV2Config, names: Iterable[str], classifier: bool = False) -> Table:
    """Return the table for a checkpoint from Hugging Face, timm or the original release.

    Args:
      config: the tower's sizes.
      names: the names of the checkpoint's arrays; they decide which table is used.
      classifier: whether the model is a SwinV2Classifier; if not, the checkpoint's head is ignored.
    """
    names = set(names)
    if any(name.startswith(('swinv2.', 'embeddings.')) for name in names):
        return hugging_face(config, names, classifier)
    return timm(config, names, classifier)


def hugging_face(config: SwinV2Config, names: set[str], classifier: bool = False) -> Table:
    """Return the table for `Swinv2Model`, or `Swinv2ForImageClassification` with prefix and head.

    Both merge patches at the end of a stage; this model does so at the start of the next stage.
    Arguments as in `table`.
    """
    root = 'swinv2.' if any(name.startswith('swinv2.') for name in names) else ''
    tower = 'tower.' if classifier else ''
    all_rules = rules(_HF_STEM, root, tower)
    for stage, depth in enumerate(config.depths):
        source, target = f'{root}encoder.layers.{stage}.', f'{tower}stages.{stage}.'
        all_rules += rules(_HF_BLOCK, source + 'blocks.{}.', target + 'blocks.', depth)
        if stage:
            merging = f'{root}encoder.layers.{stage - 1}.downsample.'
            all_rules += rules(_MERGING, merging, target + 'merge.')
    return _with_head(all_rules, 'classifier', classifier)


def timm(config: SwinV2Config, names: set[str], classifier: bool = False) -> Table:
    """Return the table for timm's `swinv2_*` and the original release.

    The original release and timm up to 0.6 merge patches at the end of a stage, and the head is
    `head`. Later versions of timm merge them at the start of a stage, and the head is `head.fc`.
    Arguments as in `table`.
    """
    merges_first = 'layers.0.downsample.reduction.weight' not in names
    tower = 'tower.' if classifier else ''
    all_rules = rules(_STEM, '', tower)
    for stage, depth in enumerate(config.depths):
        source, target = f'layers.{stage}.', f'{tower}stages.{stage}.'
        all_rules += rules(_BLOCK, source + 'blocks.{}.', target + 'blocks.', depth)
        if stage:
            layer = stage if merges_first else stage - 1
            all_rules += rules(_MERGING, f'layers.{layer}.downsample.', target + 'merge.')
    return _with_head(all_rules, 'head.fc' if 'head.fc.weight' in names else 'head', classifier)


def _with_head(tower_rules: list, head: str, classifier: bool) -> Table:
    if classifier:
        return Table(tuple(tower_rules + rules(dense(head, 'head'))), _CONSTANTS)
    reason = 'the tower returns features, not classes'
    return Table(tuple(tower_rules), _CONSTANTS | {rf'{re.escape(head)}\..*': reason})
