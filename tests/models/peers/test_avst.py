"""AVST equals its description in PyTorch, and loads the public classes' state dicts."""

import jax
import numpy as np
import pytest
import torch
from flax import nnx

from amuse_jax.benchmark.reference.peers import avst as reference_avst
from amuse_jax.benchmark.reference.peers import parts as reference_parts
from amuse_jax.models import peers
from amuse_jax.models.peers import avst, grounded_head
from amuse_jax.pretrained.key_mapping import ConversionError
from tests.models.peers import comparison, public

SMALL = avst.AVSTConfig(
    grounded_head.HeadConfig(16, answers=5, vocabulary=11, match_widths=(12, 8, 6)), audio_width=10
)


@pytest.fixture(scope='module')
def reference():
    return reference_parts.randomise(public.make_avst(SMALL))


@pytest.fixture(scope='module')
def model(reference):
    # The sizes of the file come from its shapes.
    return comparison.loaded('avst', avst.AVSTConfig(), reference_parts.state(reference, 'module.'))


@pytest.fixture(scope='module')
def inputs():
    return avst.example(SMALL, batch=3, seed=1, side=4)


@pytest.fixture(scope='module')
def run():
    return jax.jit(lambda model, inputs: (model(inputs), model.logits(inputs)))


def test_every_named_intermediate(reference, model, inputs, run):
    ours, logits = run(model, inputs)
    comparison.assert_equal(ours, reference(reference_parts.torch_inputs(inputs)), 1e-5)
    np.testing.assert_allclose(logits, ours.logits, atol=1e-6)
    assert model.config == SMALL


def test_one_question_alone_and_without_negative_maps(model, inputs, run):
    first = {name: x[:1] for name, x in inputs.items() if name != 'negative'}
    alone, logits = run(model, first)
    assert alone.negative is None
    np.testing.assert_allclose(logits, run(model, inputs)[1][:1], atol=1e-5)


def test_several_questions_about_a_video_are_those_one_by_one(model, inputs, run):
    words = np.stack([inputs['question'], inputs['question'][::-1]], axis=1)
    together, logits = run(model, inputs | {'question': words})
    assert logits.shape == (3, 2, 5) and together.attended_audio.shape == (3, 2, 16)
    for place in range(2):
        alone, _ = run(model, inputs | {'question': words[:, place]})
        np.testing.assert_allclose(logits[:, place], alone.logits, atol=1e-5)
        np.testing.assert_allclose(together.fused[:, place], alone.fused, atol=1e-5)
    np.testing.assert_array_equal(together.positive.match, alone.positive.match)


def test_gradients_of_the_head(reference, model, inputs):
    def loss(model):
        output = model(inputs)
        return (output.logits**2).sum() + (output.negative.match**2).sum()

    ours = jax.jit(jax.grad(loss))(model)
    theirs = reference(reference_parts.torch_inputs(inputs))
    reference.zero_grad()
    ((theirs['logits'] ** 2).sum() + (theirs['negative.match'] ** 2).sum()).backward()
    for kernel, name in (
        (ours.head.grounding.join.kernel, 'fc_gl.weight'),
        (ours.head.visual.attention.qkv.kernel, 'attn_v.in_proj_weight'),
        (ours.head.question.lstm.recurrent.kernel, 'question_encoder.lstm.weight_hh_l0'),
        (ours.head.audio.feed.inner.kernel, 'linear21.weight'),
    ):
        expected = reference.get_parameter(name).grad.numpy().T
        np.testing.assert_allclose(kernel[...], expected, atol=1e-4, rtol=1e-4, err_msg=name)


def test_first_stage_and_its_weights_in_the_second(model, inputs):
    reference = reference_parts.randomise(reference_avst.AVSTGrounding(SMALL), seed=1)
    state = reference_parts.state(reference)
    grounding = comparison.loaded('avst_grounding', avst.AVSTConfig(), state)
    pairs = {'audio': inputs['audio'][:, 0], 'visual': inputs['visual'][:, 0]}
    ours, logits = jax.jit(lambda model, pairs: (model(pairs), model.logits(pairs)))(
        grounding, pairs
    )
    maps = torch.tensor(pairs['visual']).permute(0, 3, 1, 2)
    theirs = reference({'audio': torch.tensor(pairs['audio']), 'visual': maps})
    for found, expected in zip((ours.attention, ours.visual, ours.match), theirs):
        np.testing.assert_allclose(found, expected.detach(), atol=1e-5)
    np.testing.assert_array_equal(logits, ours.match)

    second = nnx.clone(model)
    second.adopt(grounding)
    for own, taken in (
        (second.audio, grounding.audio),
        (second.head.grounding, grounding.grounding),
    ):
        jax.tree.map(np.testing.assert_array_equal, nnx.state(own), nnx.state(taken))


def test_dropout_only_with_random_keys(model, inputs):
    run = jax.jit(lambda model, key: model(inputs, nnx.Rngs(dropout=key)).logits)
    first, second = (run(model, jax.random.key(seed)) for seed in (0, 1))
    assert not np.allclose(first, second)


def test_parameters_are_those_of_the_public_class():
    count = public.count(public.make_avst, avst.AVSTConfig(), True)
    assert sum(count.values()) == 22_300_948
    resnet = sum(n for name, n in count.items() if name.startswith('visual_net.'))
    assert resnet == 11_692_648
    assert comparison.parameters('avst') == 7_916_716
    assert sum(count.values()) - resnet - comparison.parameters('avst') == 2_691_584  # unused


@pytest.mark.slow
def test_full_size_from_a_file(tmp_path):
    reference = reference_parts.randomise(public.make_avst(avst.AVSTConfig(), True))
    comparison.save(tmp_path / 'avst.safetensors', reference_parts.state(reference))
    torch.save(
        {f'module.{name}': x for name, x in reference.state_dict().items()}, tmp_path / 'avst.pt'
    )
    inputs = peers.example('avst', batch=2, seed=0)
    theirs = reference(reference_parts.torch_inputs(inputs))
    for file in ('avst.safetensors', 'avst.pt'):
        model = peers.load('avst', str(tmp_path / file))
        comparison.assert_equal(model(inputs), theirs, 1e-4)


def test_a_missing_layer_is_named(reference):
    state = reference_parts.state(reference)
    del state['fc_gl.bias']
    with pytest.raises(ConversionError, match='fc_gl.bias'):
        comparison.loaded('avst', SMALL, state)
