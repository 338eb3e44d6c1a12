"""Names of HTS-AT checkpoints."""

from amuse_jax.models.htsat import HTSATConfig
from amuse_jax.pretrained.convert import Row, Table, dense, linear, norm, patches, rules, same

_STEM = [
    *norm('batch_norm', 'mel_norm'),
    Row(('batch_norm.running_mean',), 'mel_norm.mean', same),
    Row(('batch_norm.running_var',), 'mel_norm.variance', same),
    Row(('patch_embed.proj.weight',), 'patches.projection.kernel', patches),
    Row(('patch_embed.proj.bias',), 'patches.projection.bias', same),
    *norm('patch_embed.norm', 'patches.norm'),
    *norm('norm', 'norm'),
]
_BLOCK = [
    *norm('layernorm_before', 'attention_norm'),
    *dense([f'attention.self.{part}' for part in ('query', 'key', 'value')], 'attention.qkv'),
    Row(('attention.self.relative_position_bias_table',), 'attention.bias_table', same),
    *dense('attention.output.dense', 'attention.out'),
    *norm('layernorm_after', 'mlp_norm'),
    *dense('intermediate.dense', 'mlp.inner'),
    *dense('output.dense', 'mlp.outer'),
]
_MERGING = [
    *norm('norm', 'norm'),
    Row(('reduction.weight',), 'reduction.kernel', linear),
]
_IGNORED = {
    r'.*\.relative_position_index': 'follows from the window',
    r'.*\.num_batches_tracked': 'counts training steps',
}


def hugging_face(config: HTSATConfig) -> Table:
    """Names of CLAP's audio tower, `ClapAudioModel` without fusion."""
    root = 'audio_encoder.'
    made = rules(_STEM, root)
    for stage, depth in enumerate(config.depths):
        theirs, ours = f'{root}layers.{stage}.', f'stages.{stage}.'
        made += rules(_BLOCK, theirs + 'blocks.{}.', ours + 'blocks.', depth)
        if stage:
            made += rules(_MERGING, f'{root}layers.{stage - 1}.downsample.', ours + 'merge.')
    return Table(tuple(made), _IGNORED)
