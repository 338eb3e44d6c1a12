"""LSTTA from its paper's description: its equations, its parameters, and its closed gates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from amuse_jax.models import building
from amuse_jax.models.htsat import HTSATConfig
from amuse_jax.models.peers import lstta
from amuse_jax.models.swin_v2 import SwinV2Config
from amuse_jax.models.text import TextConfig

SMALL = lstta.LSTTAConfig(
    SwinV2Config(32, 4, 4, (1, 1, 2, 1), (1, 2, 2, 4), 4),
    HTSATConfig(32, 4, 4, (1, 1, 2, 1), (1, 2, 2, 4), 4, mels=8),
    TextConfig(20, 6, 12, 2, 2, 16),
    rounds=2,
    width=16,
    hidden=8,
    latents=3,
    answers=5,
)


@pytest.fixture(scope='module')
def model():
    return building.build(lambda rngs: lstta.LSTTA(SMALL, rngs=rngs), 0)


@pytest.fixture(scope='module')
def run():
    return jax.jit(lambda model, inputs: model(inputs))


@pytest.fixture(scope='module')
def inputs():
    return lstta.example(SMALL, batch=2, seed=0, segments=3, frames=100)


def opened(model):
    """Return the model with random gates and outer projections."""
    model, rng = nnx.clone(model), np.random.default_rng(1)
    for block in model.blocks:
        for part in (block.to_audio, block.to_visual):
            part.gather_gate[...], part.gate[...] = jnp.asarray(rng.normal(size=2), jnp.float32)
            up = part.adapter.up.kernel
            up[...] = jnp.asarray(rng.normal(size=up.shape), jnp.float32)
    return model


def test_a_new_model_computes_what_its_towers_compute(model, inputs, run):
    output = run(model, inputs)
    frames = inputs['frames'].reshape(-1, 32, 32, 3)
    pooled = jax.jit(lambda tower, out, x: out(tower(x).pooled))(
        model.visual, model.visual_out, frames
    )
    np.testing.assert_allclose(output.visual, pooled.reshape(output.visual.shape), atol=1e-5)
    assert output.logits.shape == (2, 5)


def test_open_gates_carry_sound_into_sight_but_not_into_words(model, inputs, run):
    model = opened(model)
    plain, changed = run(model, inputs), run(model, inputs | {'audio': inputs['audio'] + 5})
    assert not np.allclose(plain.visual, changed.visual, atol=1e-3)
    np.testing.assert_array_equal(plain.question, changed.question)
    np.testing.assert_allclose(plain.segments.sum(-1), 1, atol=1e-6)


def test_segments_of_one_video_do_not_see_another(model, inputs, run):
    model = opened(model)
    mixed = {name: np.stack([x[1], x[1]]) for name, x in inputs.items()}
    np.testing.assert_allclose(run(model, mixed).logits[1], run(model, inputs).logits[1], atol=1e-4)


def test_injection_is_the_equation():
    """The latents gather, and enter the tokens weighted by the segment."""
    rng = np.random.default_rng(0)
    part = lstta.Injection(SMALL, nnx.Rngs(0))
    part.latents[...] = jnp.asarray(rng.normal(size=(3, 16)), jnp.float32)
    part.gather_gate[...], part.gate[...] = jnp.float32(0.4), jnp.float32(-0.7)
    x, others = (rng.normal(size=(1, 2, n, 16)).astype(np.float32) for n in (4, 5))
    segments = np.array([[0.3, 0.7]], np.float32)
    found = jax.jit(lambda part, *given: part(*given))(part, x, others, segments)
    softmax = jax.nn.softmax
    for t in range(2):
        q = part.latents[...]
        q = q + np.tanh(0.4) * softmax(q @ others[0, t].T) @ others[0, t]
        expected = x[0, t] - np.tanh(0.7) * softmax(segments[0, t] * x[0, t] @ q.T) @ q
        np.testing.assert_allclose(found[0, t], expected, atol=1e-5)


def test_parameters_of_the_adapters_are_those_of_the_paper():
    """23 blocks of 1024 channels: 75.37 of the 83 million that it trains."""
    config = lstta.LSTTAConfig(width=1024)
    block = nnx.eval_shape(lambda: lstta.Block(config, (1024, 1024, 1024), nnx.Rngs(0)))
    gates = 6
    assert sum(x.size for x in jax.tree.leaves(block)) - gates == 3_276_800
    assert 23 * 3_276_800 == 75_366_400


def test_rounds_that_do_not_divide():
    config = lstta.LSTTAConfig(rounds=5)
    with pytest.raises(ValueError, match='18 visual blocks of stage 3 do not divide into 5'):
        lstta.LSTTA(config, rngs=nnx.Rngs(0))


def test_several_questions_about_a_video_are_those_one_by_one(model, inputs, run):
    model = opened(model)
    asked = {name: np.stack([inputs[name], inputs[name][::-1]], 1) for name in ('words', 'mask')}
    together = run(model, inputs | asked).logits.reshape(2, 2, -1)
    for place in range(2):
        alone = run(model, inputs | {name: x[:, place] for name, x in asked.items()}).logits
        np.testing.assert_allclose(together[:, place], alone, atol=1e-4)
