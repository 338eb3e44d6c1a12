"""PSTP-Net equals its description in PyTorch, and loads the public class's state dict."""

import dataclasses

import jax
import numpy as np
import pytest
import torch

from amuse_jax.benchmark.reference.peers import parts as reference_parts
from amuse_jax.benchmark.reference.peers import pstp as reference_pstp
from amuse_jax.models import peers
from amuse_jax.models.peers import pstp
from tests.models.peers import comparison, public

SMALL = pstp.PSTPConfig(
    16, 10, 12, answers=5, segments=4, top_segments=2, top_patches=6
)  # width, audio, CLIP
SELECTS = {'segments': 4, 'top_segments': 2, 'top_patches': 6}
released = reference_pstp.PSTPReleased.forward


def make(name, vocabulary=0):
    config = dataclasses.replace(SMALL, vocabulary=vocabulary)
    reference = reference_parts.randomise(public.make_pstp(config))
    published = dataclasses.replace(pstp.PSTPConfig(), **SELECTS)
    state = reference_parts.state(reference, 'module.')
    return reference, comparison.loaded(name, published, state)


@pytest.fixture(scope='module')
def inputs():
    return pstp.example(SMALL, batch=3, seed=1, seconds=8)


@pytest.mark.parametrize('vocabulary', [0, 11])
def test_the_released_forward(vocabulary):
    reference, model = make('pstp_released', vocabulary)
    config = dataclasses.replace(SMALL, vocabulary=vocabulary)
    assert model.config == config
    inputs = pstp.example(config, batch=3, seed=1, seconds=8)
    ours, logits = jax.jit(lambda m, x: (m(x), m.logits(x)))(model, inputs)
    comparison.assert_equal(ours, released(reference, reference_parts.torch_inputs(inputs)), 1e-5)
    np.testing.assert_allclose(logits, ours.logits, atol=1e-6)


def test_the_repaired_modules(inputs):
    reference, model = make('pstp_paper')
    ours = jax.jit(lambda model, x: model(x))(model, inputs)
    theirs = reference(reference_parts.torch_inputs(inputs))
    comparison.assert_equal(ours, theirs, 1e-5)
    # Every video and every frame has its own selection, whatever else is in the batch.
    alone = {name: x[1:2] for name, x in inputs.items()}
    for path, expected in reference(reference_parts.torch_inputs(alone)).items():
        torch.testing.assert_close(theirs[path][1:2], expected, atol=1e-5, rtol=1e-5)
    assert len({tuple(row) for row in ours.selection.patches.reshape(-1, 6).tolist()}) > 3


def test_gradients_of_the_exchange(inputs):
    reference, model = make('pstp_paper')

    def loss(model):
        return (model(inputs).logits ** 2).sum()

    ours = jax.jit(jax.grad(loss))(model)
    outputs = reference(reference_parts.torch_inputs(inputs))
    (outputs['logits'] ** 2).sum().backward()
    for kernel, name in (
        (ours.exchange.cross.qkv.kernel, 'GlobalLocal_Module.layers.0.cm_attn.in_proj_weight'),
        (ours.hear.feed.inner.kernel, 'AudioGuidedVisualAttn.audio_query_linear1.weight'),
        (ours.encoder.attention.qkv.kernel, 'GlobalSelf_Module.layers.0.self_attn.in_proj_weight'),
    ):
        expected = reference.get_parameter(name).grad.numpy().T
        np.testing.assert_allclose(kernel[...], expected, atol=1e-4, rtol=1e-4, err_msg=name)
    assert not ours.choose_segments.qkv.kernel[...].any()  # hard selection


def test_segments_that_do_not_divide_the_seconds():
    _, model = make('pstp_paper')
    inputs = pstp.example(SMALL, batch=1, seed=0, seconds=10)
    with pytest.raises(ValueError, match='10 seconds do not divide into 4 segments'):
        model.logits(inputs)


def test_parameters_are_those_that_the_paper_counts():
    with_lstm = pstp.PSTPConfig(vocabulary=93)
    assert sum(public.count(public.make_pstp, pstp.PSTPConfig()).values()) == 16_383_018
    assert sum(public.count(public.make_pstp, with_lstm).values()) == 18_794_026
    attention = 1_050_624
    assert comparison.parameters('pstp_released') == 2_453_546 == 1_402_922 + attention
    dropped = 2 * 526_336  # MLPs and norms after the two selections, computed and never used
    assert comparison.parameters('pstp_paper') + dropped == 4_296_746 + 6 * attention


@pytest.mark.slow
@pytest.mark.parametrize('name', ['pstp_released', 'pstp_paper'])
def test_full_size_from_a_file(tmp_path, name):
    reference = reference_parts.randomise(public.make_pstp(pstp.PSTPConfig()))
    file = tmp_path / 'pstp.pt'
    torch.save({f'module.{key}': x for key, x in reference.state_dict().items()}, file)
    inputs = peers.example(name, batch=2, seed=0)
    model = peers.load(name, str(file))
    theirs = reference_parts.torch_inputs(inputs)
    theirs = released(reference, theirs) if name == 'pstp_released' else reference(theirs)
    comparison.assert_equal(jax.jit(lambda model, x: model(x))(model, inputs), theirs, 1e-4)
