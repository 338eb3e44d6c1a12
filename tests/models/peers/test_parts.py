"""Layers of the peers against PyTorch's own modules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from amuse_jax.benchmark.reference.peers import parts as reference_parts
from amuse_jax.models.peers import parts, question
from amuse_jax.pretrained import key_mapping
from amuse_jax.pretrained.peers import adapters, head


def fill(build, rows, theirs):
    table = key_mapping.Table(tuple(key_mapping.rules(rows)), {})
    return key_mapping.fill(nnx.eval_shape(build), reference_parts.state(theirs), table)


@pytest.fixture(scope='module')
def rng():
    return np.random.default_rng(0)


def test_attention_and_its_mean_weights(rng):
    theirs = reference_parts.randomise(torch.nn.MultiheadAttention(8, 2, batch_first=True))
    rows = [
        row.__class__(
            tuple(name.removeprefix('x.') for name in row.sources), row.target[2:], row.op
        )
        for row in head.attention('x', 'y')
    ]
    ours = fill(lambda: parts.MultiheadAttention(8, 2, 0.1, nnx.Rngs(0)), rows, theirs)
    query, memory = (rng.normal(size=(3, n, 8)).astype(np.float32) for n in (2, 5))
    found = jax.jit(lambda model, *x: model(*x))(ours, query, memory)
    tensors = torch.tensor(query), torch.tensor(memory)
    for ours_one, theirs_one in zip(found, theirs(tensors[0], tensors[1], tensors[1])):
        np.testing.assert_allclose(ours_one, theirs_one.detach(), atol=1e-6)


def test_grouped_convolution(rng):
    theirs = torch.nn.Conv2d(12, 6, 1, groups=3, bias=False)
    rows = [key_mapping.Row(('weight',), 'kernel', adapters.grouped(3))]
    ours = fill(lambda: parts.GroupedLinear(12, 6, 3, nnx.Rngs(0)), rows, theirs)
    x = rng.normal(size=(2, 5, 12)).astype(np.float32)
    expected = theirs(torch.tensor(x).mT[..., None])[..., 0].mT
    np.testing.assert_allclose(ours(x), expected.detach(), atol=1e-6)


def test_channels_that_do_not_divide_into_groups():
    with pytest.raises(ValueError, match='12 and 8 channels do not divide into 3'):
        parts.GroupedLinear(12, 8, 3, nnx.Rngs(0))


def test_initial_weights_have_pytorchs_limits():
    ours = question.LSTM(6, 25, nnx.Rngs(0))
    for layer in (ours.input, ours.recurrent):
        for weights in (layer.kernel[...], layer.bias[...]):
            assert 0.15 < np.abs(weights).max() <= 0.2  # 1 / sqrt(25)
    packed = parts.MultiheadAttention(50, 2, 0.0, nnx.Rngs(0)).qkv
    assert np.abs(packed.kernel[...]).max() == pytest.approx(np.sqrt(6 / 200), rel=0.01)
    assert not packed.bias[...].any()


def test_stochastic_depth_skips_examples_and_scales_the_others():
    before, after = jnp.ones((1000, 2)), jnp.full((1000, 2), 4.0)
    found = parts.drop_path(before, after, 0.25, nnx.Rngs(dropout=0))
    assert set(np.unique(found)) == {1.0, 5.0}
    assert np.mean(found == 1) == pytest.approx(0.25, abs=0.05)
    np.testing.assert_array_equal(parts.drop_path(before, after, 0.25, None), after)
    np.testing.assert_array_equal(parts.drop_path(before, after, 0.0, nnx.Rngs(0)), after)
