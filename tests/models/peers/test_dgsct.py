"""DG-SCT equals its description in PyTorch, and loads the public class's state dict."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from amuse_jax.benchmark.reference.peers import dgsct as reference_dgsct
from amuse_jax.benchmark.reference.peers import parts as reference_parts
from amuse_jax.benchmark.reference.peers import weights
from amuse_jax.models import peers
from amuse_jax.models.data_norm import DataNorm
from amuse_jax.models.htsat import HTSATConfig
from amuse_jax.models.peers import dgsct, disturb, dual_guided_adapter, grounded_head
from amuse_jax.models.swin_v2 import SwinV2, SwinV2Config
from amuse_jax.pretrained import key_mapping
from amuse_jax.pretrained.peers import dgsct as names
from tests.models.peers import comparison, public

SMALL = dgsct.DGSCTConfig(
    SwinV2Config(32, 4, 8, (1, 1, 4, 1), (1, 2, 2, 4), 4),
    HTSATConfig(32, 4, 8, (1, 1, 2, 1), (1, 2, 2, 4), 4, mels=8),
    grounded_head.HeadConfig(64, answers=5, vocabulary=11, match_widths=(12, 8, 6)),
    dual_guided_adapter.AdapterConfig(latents=3, reduction=2, groups=2),
)


@pytest.fixture(scope='module')
def reference():
    # Norms of so few channels magnify rounding where all channels are close; here they are not.
    return reference_parts.randomise(public.make_dgsct(SMALL), seed=4)


@pytest.fixture(scope='module')
def model(reference):
    state = {f'module.{name}': x for name, x in weights.released_arrays(reference).items()}
    published = dataclasses.replace(dgsct.DGSCTConfig(), visual=SMALL.visual, audio=SMALL.audio)
    return comparison.loaded('dgsct', published, state)


@pytest.fixture(scope='module')
def inputs():
    return dgsct.example(SMALL, batch=2, seed=1, segments=2, frames=125)


def test_every_named_intermediate(reference, model, inputs):
    assert model.config == SMALL
    ours, logits = jax.jit(lambda model, inputs: (model(inputs), model.logits(inputs)))(
        model, inputs
    )
    stages, named = intermediates(reference, inputs)
    comparison.compare_stages(ours, stages, 1e-5)
    comparison.assert_equal(ours, named, 1e-5)
    np.testing.assert_allclose(logits, ours.logits, atol=1e-6)


def intermediates(reference, inputs):
    """Return the tokens after every stage, and all other intermediates by their names in ours."""
    tensors = reference_parts.torch_inputs(inputs)
    with torch.no_grad():
        stages, attention, visual, audio = reference.encode(tensors)
        head = {f'head.{name}': x for name, x in reference(tensors).items()}
    return stages, {'attention': attention, 'visual': visual, 'audio': audio, **head}


@pytest.mark.parametrize('has_gate', [True, False])
def test_adapter_and_its_gradients(has_gate):
    config = dual_guided_adapter.AdapterConfig(latents=3, reduction=2, groups=2)
    theirs = reference_parts.randomise(
        reference_dgsct.Adapter((4, 8), (7, 6), config, has_gate), scale=0.7
    )
    abstract = nnx.eval_shape(
        lambda: dual_guided_adapter.DualGuidedAdapter((4, 8), (7, 6), config, has_gate, nnx.Rngs(0))
    )
    table = key_mapping.Table(tuple(key_mapping.rules(names.adapter(2, has_gate))), {})
    ours = key_mapping.fill(abstract, reference_parts.state(theirs), table)
    rng = np.random.default_rng(0)
    x, other = (rng.normal(size=(2, *s)).astype(np.float32) for s in ((4, 8), (7, 6)))

    def loss(model, x, other):
        update, attention = model(x, other)
        return (update**2).sum() + (attention**2).sum(), (update, attention)

    gradients, found = jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(ours, x, other)
    tensors = [torch.tensor(each, requires_grad=True) for each in (x, other)]
    expected = theirs(*tensors)
    sum((each**2).sum() for each in expected).backward()
    for one, other_one in zip(found, expected):
        np.testing.assert_allclose(one, other_one.detach(), atol=1e-5, rtol=1e-5)
    of_weights, *of_inputs = gradients
    for one, tensor in zip(
        (*of_inputs, of_weights.mix.kernel[...].T, of_weights.position.kernel[...].T),
        (*tensors, theirs.conv_adapter.weight, theirs.fc_affine_v_s_att.weight),
    ):
        expected = tensor.grad.reshape(one.shape)
        np.testing.assert_allclose(one, expected, atol=1e-4, rtol=1e-4)


def test_the_papers_form_of_the_weights():
    """With base 1 and both factors 0 the guided stream is the stream itself."""
    config = dual_guided_adapter.AdapterConfig(1, 2, 2, alpha=0.0, beta=0.0, base=1.0)
    model = dual_guided_adapter.DualGuidedAdapter((4, 8), (7, 6), config, False, nnx.Rngs(0))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 4, 8)).astype(np.float32)
    first, second = (model(x, rng.normal(size=(2, 7, 6)).astype(np.float32))[0] for _ in range(2))
    np.testing.assert_allclose(first, second, atol=1e-6)


@pytest.mark.parametrize('switch', ['batch_statistics', 'spec_augment', 'mixup'])
def test_disturbances_are_switches_of_training(switch):
    norm = DataNorm(8)
    log_mel = jnp.asarray(np.random.default_rng(0).normal(3, 2, (4, 100, 8)), jnp.float32)
    plain = norm(log_mel)
    on = disturb.Disturbances(**{switch: True})
    keys = nnx.Rngs(dropout=0)
    np.testing.assert_array_equal(disturb.normalised(norm, log_mel, on, None), plain)
    off = disturb.normalised(norm, log_mel, disturb.Disturbances(), keys)
    np.testing.assert_array_equal(off, plain)
    found = disturb.normalised(norm, log_mel, on, keys)
    assert found.shape == plain.shape and not np.allclose(found, plain)
    if switch == 'batch_statistics':
        np.testing.assert_allclose(found.mean((0, 1)), 0, atol=1e-5)
        np.testing.assert_allclose(found.std((0, 1)), 1, atol=1e-3)
    elif switch == 'spec_augment':
        assert np.all((found == 0) | (found == plain))
    else:  # each spectrogram and its mirror image share out their sum
        np.testing.assert_array_less(np.abs(found), np.abs(plain).max() + 1e-6)


def test_depths_that_do_not_pair():
    config = dataclasses.replace(
        SMALL, visual=dataclasses.replace(SMALL.visual, depths=(1, 1, 3, 1))
    )
    with pytest.raises(ValueError, match='stage 3: 3 visual blocks are no multiple of the 2 audio'):
        nnx.eval_shape(lambda: dgsct.DGSCT(config, rngs=nnx.Rngs(0)))


def test_parameters_are_those_of_the_public_class():
    """By parts: tests/pretrained/test_peers.py compares every array of the whole."""
    config = dgsct.DGSCTConfig()
    adapters = 0
    for stage, depth in enumerate(config.audio.depths):
        visual = (48 >> stage) ** 2, config.visual.width << stage
        audio = (64 >> stage) ** 2, config.audio.width << stage
        make = functools.partial(dgsct.PairAdapters, visual, audio, config.adapter)
        adapters += depth * comparison.size(lambda make=make: make(nnx.Rngs(0)))
    head = comparison.size(lambda: grounded_head.GroundedHead(config.head, nnx.Rngs(0)))
    head += comparison.size(lambda: grounded_head.AudioProjection(768, 1536, nnx.Rngs(0)))
    assert (adapters, head) == (186_336_456, 66_870_444)
    unused = 3_545_088
    assert adapters + head + unused == 256_751_988  # those that are trained
    assert comparison.size(lambda: SwinV2(config.visual, rngs=nnx.Rngs(0))) == 195_202_932


@pytest.mark.slow
def test_full_size(tmp_path):
    config = dgsct.DGSCTConfig()
    reference = reference_dgsct.soften(reference_parts.randomise(public.make_dgsct(config)))
    inputs = dgsct.example(config, batch=1, seed=0, segments=1)
    stages, named = intermediates(reference, inputs)
    comparison.save(tmp_path / 'dgsct.safetensors', weights.released_arrays(reference))
    del reference
    model = peers.load('dgsct', str(tmp_path / 'dgsct.safetensors'))
    ours = jax.jit(lambda model, x: model(x))(model, inputs)
    comparison.compare_stages(ours, stages, 1e-4)
    comparison.assert_equal(ours, named, 1e-4)
