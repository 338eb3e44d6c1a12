"""Names of Swin-V2 checkpoints."""

from amuse_jax.models.swin_v2 import SwinV2Config
from amuse_jax.pretrained.convert import Row, Table, dense, flat, linear, norm, patches, rules, same

_ATTENTION = 'attention.self.'
_BIAS = _ATTENTION + 'continuous_position_bias_mlp.'

_STEM = [
    Row(('embeddings.patch_embeddings.projection.weight',), 'patches.projection.kernel', patches),
    Row(('embeddings.patch_embeddings.projection.bias',), 'patches.projection.bias', same),
    *norm('embeddings.norm', 'patches.norm'),
    *norm('layernorm', 'norm'),
]
_BLOCK = [
    Row(
        tuple(f'{_ATTENTION}{part}.weight' for part in ('query', 'key', 'value')),
        'attention.qkv.kernel',
        linear,
    ),
    Row((f'{_ATTENTION}query.bias',), 'attention.query_bias', same),
    Row((f'{_ATTENTION}value.bias',), 'attention.value_bias', same),
    Row((f'{_ATTENTION}logit_scale',), 'attention.logit_scale', flat),
    *dense(f'{_BIAS}0', 'attention.bias_inner'),
    Row((f'{_BIAS}2.weight',), 'attention.bias_outer.kernel', linear),
    *dense('attention.output.dense', 'attention.out'),
    # Res-post-norm: the names still say before and after, as in Swin.
    *norm('layernorm_before', 'attention_norm'),
    *dense('intermediate.dense', 'mlp.inner'),
    *dense('output.dense', 'mlp.outer'),
    *norm('layernorm_after', 'mlp_norm'),
]
_MERGING = [
    Row(('reduction.weight',), 'reduction.kernel', linear),
    *norm('norm', 'norm'),
]


def hugging_face(config: SwinV2Config) -> Table:
    """Names of `Swinv2Model`; it merges at the end of a stage, we at the start of the next."""
    made = rules(_STEM)
    for stage, depth in enumerate(config.depths):
        theirs, ours = f'encoder.layers.{stage}.', f'stages.{stage}.'
        made += rules(_BLOCK, theirs + 'blocks.{}.', ours + 'blocks.', depth)
        if stage:
            made += rules(_MERGING, f'encoder.layers.{stage - 1}.downsample.', ours + 'merge.')
    return Table(tuple(made), {})
