"""LAVISH equals its description in PyTorch, and loads the public class's state dict."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from amuse_jax.benchmark.reference.peers import lavish as reference_lavish
from amuse_jax.benchmark.reference.peers import parts as reference_parts
from amuse_jax.benchmark.reference.peers import weights
from amuse_jax.models import peers, swin_v2
from amuse_jax.models.peers import avst, grounded_head, lavish, parts
from amuse_jax.models.swin_v2 import SwinV2Config
from amuse_jax.pretrained import key_mapping
from amuse_jax.pretrained.peers import lavish as names
from tests.models.peers import comparison, public

SMALL = lavish.LAVISHConfig(
    SwinV2Config(32, 4, 8, (2, 1, 1, 1), (1, 2, 2, 4), 4),  # stage 1 has a shifted block
    grounded_head.HeadConfig(16, answers=5, vocabulary=11, match_widths=(12, 8, 6)),
    lavish.AdapterConfig(latents=3, reduction=4, groups=2),
)


@pytest.fixture(scope='module')
def reference():
    # Norms of so few channels magnify rounding; small gates keep it small.
    return reference_parts.randomise(public.make_lavish(SMALL), scale=0.1)


@pytest.fixture(scope='module')
def model(reference):
    state = {f'module.{name}': x for name, x in weights.released_arrays(reference).items()}
    published = dataclasses.replace(lavish.LAVISHConfig(), swin=SMALL.swin)
    return comparison.loaded('lavish', published, state)


@pytest.fixture(scope='module')
def inputs():
    return lavish.example(SMALL, batch=2, seed=1, segments=2)


@pytest.fixture(scope='module')
def run():
    return jax.jit(lambda model, inputs: (model(inputs), model.logits(inputs)))


def test_every_named_intermediate(reference, model, inputs, run):
    assert model.config == SMALL
    ours, logits = run(model, inputs)
    stages, named = intermediates(reference, inputs)
    comparison.compare_stages(ours.streams, stages, 1e-5)
    comparison.assert_equal(ours, named, 1e-5)
    np.testing.assert_allclose(logits, ours.logits, atol=1e-6)


def intermediates(reference, inputs):
    """Return the tokens after every stage, and all other intermediates by their names in ours."""
    tensors = reference_parts.torch_inputs(inputs)
    with torch.no_grad():
        stages, visual, audio = reference.encode(tensors)
        head = {f'head.{name}': x for name, x in reference(tensors).items()}
    return stages, {'streams.visual': visual, 'streams.audio': audio, **head}


def test_the_weights_of_avsts_first_stage(model):
    """All but the first layer of the audio features, which LAVISH has not."""
    grounding = avst.AVSTGrounding(avst.AVSTConfig(SMALL.head, audio_width=10), rngs=nnx.Rngs(3))
    adopting = nnx.clone(model)
    adopting.adopt(grounding)
    for own, taken in (
        (adopting.audio, grounding.audio.outer),
        (adopting.head.grounding, grounding.grounding),
    ):
        jax.tree.map(np.testing.assert_array_equal, nnx.state(own), nnx.state(taken))
    jax.tree.map(
        np.testing.assert_array_equal,
        nnx.state(adopting.head.question),
        nnx.state(model.head.question),
    )


@pytest.mark.parametrize('batch_norm, audio_gate', [(True, False), (False, True)])
def test_adapter_and_its_gradients(batch_norm, audio_gate):
    config = lavish.AdapterConfig(5, 2, 2, batch_norm=batch_norm)
    theirs = reference_parts.randomise(reference_lavish.Adapter(8, config, audio_gate), scale=0.7)
    rng = np.random.default_rng(0)
    x, other = (rng.normal(size=(2, n, 8)).astype(np.float32) for n in (4, 7))
    ours = filled_adapter(config, audio_gate, theirs)
    value, gradients = jax.jit(
        lambda model, x, other: (
            model(x, other),
            jax.grad(lambda *args: (args[0](*args[1:]) ** 2).sum(), (0, 1, 2))(model, x, other),
        )
    )(ours, x, other)
    tensors = [torch.tensor(each, requires_grad=True) for each in (x, other)]
    expected = theirs(*tensors)
    (expected**2).sum().backward()
    np.testing.assert_allclose(value, expected.detach(), atol=1e-5, rtol=1e-5)
    for found, tensor in zip(
        (gradients[1], gradients[2], gradients[0].latents[...]), (*tensors, theirs.my_tokens)
    ):
        np.testing.assert_allclose(found, tensor.grad, atol=1e-4, rtol=1e-4)


def filled_adapter(config, has_gate, theirs):
    rows = names.adapter_rows(config, has_gate)
    abstract = nnx.eval_shape(lambda: lavish.Adapter(8, config, has_gate, nnx.Rngs(0)))
    table = key_mapping.Table(tuple(key_mapping.rules(rows)), {r'.*num_batches.*': 'counter'})
    return key_mapping.fill(abstract, reference_parts.state(theirs), table)


def test_closed_gates_leave_the_tower_alone(model, inputs, run):
    closed = nnx.clone(model)
    for block in closed.adapters:
        for adapter in (
            block.visual_first,
            block.visual_second,
            block.audio_first,
            block.audio_second,
        ):
            adapter.gate[...] = jnp.zeros(1)
    output, _ = run(closed, inputs)
    frames = parts.images(jnp.asarray(inputs['frames']))
    tower = jax.jit(lambda swin, x: swin(x).stages)(closed.swin, frames)
    for ours, expected in zip(output.streams.visual_stages, tower):
        np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_whole_frames_are_normalised():
    frames = np.random.default_rng(0).integers(0, 255, (2, 3, 8, 8, 3), np.uint8)
    expected = swin_v2.normalise(frames).reshape(6, 8, 8, 3)
    np.testing.assert_array_equal(parts.images(jnp.asarray(frames)), expected)
    np.testing.assert_array_equal(parts.images(expected.reshape(2, 3, 8, 8, 3)), expected)


def test_stochastic_depth_is_a_switch(model, inputs, run):
    noisy = nnx.clone(model)
    noisy.config = dataclasses.replace(model.config, drop_path=0.9)
    found = jax.jit(lambda model, key: model.encode(inputs, nnx.Rngs(dropout=key)).visual)(
        noisy, jax.random.key(0)
    )
    assert not np.allclose(found, run(model, inputs)[0].streams.visual, atol=1e-3)


def test_parameters_are_those_that_the_paper_counts():
    """By parts: tests/pretrained/test_peers.py compares every array of the whole."""
    config = lavish.LAVISHConfig()
    adapters = 0
    for stage, depth in enumerate(config.swin.depths):
        make = functools.partial(lavish.BlockAdapters, config.swin.width << stage, config.adapter)
        adapters += depth * comparison.size(lambda make=make: make(nnx.Rngs(0)))
    head = comparison.size(lambda: grounded_head.GroundedHead(config.head, nnx.Rngs(0)))
    head += 2 * 786_944 + 262_656  # the three linear layers before it
    assert (adapters, head) == (8_835_264, 9_424_556)
    norms, unused, swin = 81_024, 2_757_632, 228_772_549
    assert adapters + head + norms == 18_340_844  # those that get a gradient
    assert adapters + head + norms + unused == 21_098_476  # the trainable ones in the paper
    assert adapters + head + unused + swin == 249_790_001


@pytest.mark.slow
def test_full_size(tmp_path):
    config = lavish.LAVISHConfig()
    reference = reference_parts.randomise(public.make_lavish(config))
    state = weights.released_arrays(reference)
    comparison.save(tmp_path / 'lavish.safetensors', state)
    inputs = lavish.example(config, batch=1, seed=0, segments=1)
    stages, named = intermediates(reference, inputs)
    del reference, state
    model = peers.load('lavish', str(tmp_path / 'lavish.safetensors'))
    ours = jax.jit(lambda model, x: model(x))(model, inputs)
    comparison.compare_stages(ours.streams, stages, 1e-4)
    comparison.assert_equal(ours, named, 1e-4)
