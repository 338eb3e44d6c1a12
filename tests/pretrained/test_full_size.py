"""Compare the paper's towers at full size with the original models: float32, random weights.

python -m pytest -m slow tests/pretrained
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import timm
import torch
from flax import nnx
from transformers import ClapAudioConfig
from transformers.models.clap.modeling_clap import ClapAudioModel

from amuse_jax.benchmark.reference import towers as reference
from amuse_jax.config import default_config
from amuse_jax.models import swin_v2
from amuse_jax.models.htsat import HTSAT, HTSATTagger
from amuse_jax.models.swin_v2 import SwinV2
from amuse_jax.pretrained import htsat as htsat_names
from amuse_jax.pretrained import key_mapping, tagging
from amuse_jax.pretrained import swin_v2 as swin_names

pytestmark = pytest.mark.slow
LARGE = swin_v2.named('swinv2_large_window12_192')
BFLOAT16_ERROR = 3e-2  # relative error of bfloat16 against float32


def filled(build, table, arrays):
    return key_mapping.fill(nnx.eval_shape(build), arrays, table)


def close(ours, theirs):
    np.testing.assert_allclose(np.asarray(ours), theirs.numpy(), atol=1e-4, rtol=0)


def bfloat16_error(build_low, tower, x):
    low = nnx.merge(nnx.split(nnx.eval_shape(build_low))[0], nnx.state(tower))
    pooled = [
        np.asarray(jax.jit(lambda t, x: t(x).pooled)(model, x), np.float32)
        for model in (low, tower)
    ]
    return np.linalg.norm(pooled[0] - pooled[1]) / np.linalg.norm(pooled[1])


@pytest.fixture(scope='module')
def pixels():
    return np.random.default_rng(0).normal(size=(2, 192, 192, 3)).astype(np.float32)


def test_swin_v2_large_matches_timm_after_every_stage(pixels):
    original = reference.randomise(
        timm.create_model('swinv2_large_window12_192', num_classes=0)
    ).eval()
    arrays = reference.state_arrays(original)
    tower = filled(lambda: SwinV2(LARGE, rngs=nnx.Rngs(0)), swin_names.table(LARGE, arrays), arrays)
    output = jax.jit(lambda tower, x: tower(x))(tower, pixels)
    with torch.no_grad():
        x = original.patch_embed(torch.tensor(pixels).permute(0, 3, 1, 2))
        for ours, layer in zip(output.stages, original.layers, strict=True):
            x = layer(x)
            close(ours, x.flatten(1, 2))
        x = original.norm(x)
    close(output.tokens, x.flatten(1, 2))
    close(output.pooled, x.mean((1, 2)))
    build = lambda: SwinV2(LARGE, rngs=nnx.Rngs(0), dtype=jnp.bfloat16)  # noqa: E731
    assert bfloat16_error(build, tower, pixels) < BFLOAT16_ERROR


def test_swin_v2_large_matches_hugging_face(pixels):
    original = reference.build(default_config(), 'visual')
    arrays = reference.state_arrays(original)
    tower = filled(lambda: SwinV2(LARGE, rngs=nnx.Rngs(0)), swin_names.table(LARGE, arrays), arrays)
    output = jax.jit(lambda tower, x: tower(x))(tower, pixels)
    with torch.no_grad():
        theirs = original(torch.tensor(pixels).permute(0, 3, 1, 2))
    close(output.tokens, theirs.last_hidden_state)
    close(output.pooled, theirs.pooler_output)


def test_htsat_matches_the_release(original_htsat):
    arrays = original_htsat.draw(tagging.RELEASED, 527)
    for name, tensor in arrays.items():
        if name.endswith('weight') and 'norm' not in name and name != 'bn0.weight':
            arrays[name] = tensor * 0.15  # reduces 0.2, because the full width sums many more terms
    source = {name: tensor.numpy() for name, tensor in arrays.items()}
    config = tagging.RELEASED
    model = filled(
        lambda: HTSATTagger(config, 527, rngs=nnx.Rngs(0)),
        htsat_names.table(config, source, tagger=True),
        source,
    )
    log_mel = np.random.default_rng(0).uniform(-80, 0, (2, 1001, 64)).astype(np.float32)
    clip, along, tokens = original_htsat.Original(arrays, config)(torch.tensor(log_mel))
    close(jax.jit(lambda m, x: m.tower(x).tokens)(model, log_mel), tokens)
    tags = jax.jit(lambda m, x: m(x))(model, log_mel)
    close(tags.clip, clip)
    close(tags.frames, along)


@pytest.mark.parametrize('fused', [False, True])
def test_htsat_matches_clap(fused):
    original = reference.randomise(ClapAudioModel(ClapAudioConfig(enable_fusion=fused))).eval()
    arrays, config = reference.state_arrays(original), tagging.RELEASED
    tower = filled(
        lambda: HTSAT(config, rngs=nnx.Rngs(0)), htsat_names.table(config, arrays), arrays
    )
    log_mel = np.random.default_rng(0).uniform(-80, 0, (2, 1001, 64)).astype(np.float32)
    with torch.no_grad():
        features = torch.tensor(log_mel)[:, None]
        is_longer = torch.zeros(2, 1, dtype=torch.bool) if fused else None
        if fused:  # four views of a longer sound; for a short sound only the first is used
            features = features.repeat(1, 4, 1, 1)
        theirs = original(input_features=features, is_longer=is_longer)
    output = jax.jit(lambda tower, x: tower(x))(tower, log_mel)
    # The last hidden state of the original is a map (b, d, frequency, time), so compare the pooled
    # output only.
    close(output.pooled, theirs.pooler_output)
    build = lambda: HTSAT(config, rngs=nnx.Rngs(0), dtype=jnp.bfloat16)  # noqa: E731
    assert bfloat16_error(build, tower, log_mel) < BFLOAT16_ERROR
