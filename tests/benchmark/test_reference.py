"""The model, compared with a PyTorch implementation that was written from the equations.

The tests run once with each answer head.
"""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from amuse_jax.benchmark import inputs
from amuse_jax.benchmark.reference import amuse as reference
from amuse_jax.benchmark.reference import universal_encoder, weights
from amuse_jax.config import HEADS
from amuse_jax.models.amuse import Amuse, AmuseConfig
from amuse_jax.models.universal_encoder import UniversalEncoder
from amuse_jax.training import state
from amuse_jax.training.pretrain import stage as pretrain
from amuse_jax.training.train import answering

VIDEOS, QUESTIONS = 2, 3


@pytest.fixture(scope='module', params=HEADS)
def sizes(small, request):
    """Return the small config with one of the answer heads."""
    config = small.copy_and_resolve_references()
    with config.unlocked():
        config.model.head = request.param
    return config


@pytest.fixture(scope='module')
def batch(small):
    """Return a batch with several questions per video; one video lacks its last segment."""
    batch = inputs.random_batch(small, VIDEOS, QUESTIONS)
    batch['segment_mask'][1, -1] = False
    return batch


@pytest.fixture(scope='module')
def torch_model(sizes):
    return reference.Amuse(sizes, inputs.random_phrases()).eval()


@pytest.fixture(scope='module')
def jax_model(sizes, torch_model):
    config, phrases = AmuseConfig.from_settings(sizes), inputs.random_phrases()
    abstract = nnx.eval_shape(lambda: Amuse(config, phrases, rngs=nnx.Rngs(0)))
    return weights.fill(abstract, torch_model, sizes)


@pytest.fixture(scope='module')
def found(sizes, jax_model, batch):
    """Return JAX's answers, loss, and gradients by name, all from one compiled program."""
    structure, params, frozen = state.split(jax_model, sizes.train.trainable)

    @jax.jit
    def run(params, frozen, batch):
        def objective(params):
            model = structure.merge(params | frozen)
            _, output = answering.answer(model, batch, is_open=True)
            likelihood = jax.nn.log_softmax(output.logits)
            loss = -jnp.take_along_axis(likelihood, batch['answers'][..., None], -1).mean()
            return loss, output

        return jax.value_and_grad(objective, has_aux=True)(params)

    (loss, output), gradients = run(params, frozen, batch)
    return output, loss, gradients


def check_close(value, expected):
    """Check that arrays are equal within a small part of the largest value."""
    value, expected = np.asarray(value), np.asarray(expected)
    assert value.shape == expected.shape
    assert np.abs(value - expected).max() < 1e-4 * np.abs(expected).max()


def test_every_output_equals_the_references(found, torch_model, batch):
    for question in range(QUESTIONS):
        with torch.no_grad():
            expected = torch_model(inputs.torch_batch(batch, question))
        for name in expected._fields:
            check_close(getattr(found[0], name)[:, question], getattr(expected, name))


def test_a_videos_questions_at_once_equal_one_question_at_a_time(torch_model, batch):
    """They also do if the tokens that do not depend on the question are given."""
    everything = inputs.torch_batch(batch)
    with torch.no_grad():
        tokens = torch_model.encoder.question_free(everything['frames'], everything['log_mel'])
        stored = everything | dict(zip(answering.QUESTION_FREE, tokens))
        del stored['frames'], stored['log_mel']
        together = torch_model(everything)
        from_tokens = torch_model(stored)
        for question in range(QUESTIONS):
            alone = torch_model(inputs.torch_batch(batch, question))
            for name in alone._fields:
                found = getattr(together, name).unflatten(0, (VIDEOS, QUESTIONS))[:, question]
                check_close(found, getattr(alone, name))
    for value, expected in zip(from_tokens, together):
        check_close(value, expected)


def test_answers_depend_on_every_input(sizes, torch_model, batch):
    """Otherwise equal outputs would prove nothing about an input that is ignored.

    The paper's head takes the features of the rhythm and source encoders, not their predictions.
    """
    ignored = {'rhythm', 'sources'} if sizes.model.head == 'paper' else set()
    sample = inputs.torch_batch(batch, 0)
    with torch.no_grad():
        right = torch_model(sample).logits
        for name in sample.keys() - {'answers', 'segment_mask', 'word_mask'}:
            other = sample | {name: sample[name].flip(0)}
            change = (torch_model(other).logits - right).abs().max()
            assert (change > 1e-4 * right.abs().max()) == (name not in ignored), name


def test_every_gradient_equals_the_references(sizes, found, jax_model, torch_model, batch):
    _, loss, gradients = found
    torch_model = copy.deepcopy(torch_model)
    names = weights.table(torch_model, sizes)
    trained = weights.set_trainable(torch_model, names, sizes.train.trainable)
    # No question uses every row of the position and token type tables.
    assert sum(x.numel() for x in trained) >= sum(x.size for x in gradients.values())
    expected = 0.0
    for question in range(QUESTIONS):
        sample = inputs.torch_batch(batch, question)
        value = torch.nn.functional.cross_entropy(torch_model(sample).logits, sample['answers'])
        (value / QUESTIONS).backward()
        expected += value.item() / QUESTIONS
    assert loss == pytest.approx(expected, rel=1e-5)

    with torch.no_grad():  # weights are replaced by gradients, so that weights.fill renames them
        for parameter in torch_model.parameters():
            parameter.copy_(torch.zeros(()) if parameter.grad is None else parameter.grad)
    named = state.split(weights.fill(jax_model, torch_model, sizes), sizes.train.trainable)[1]
    assert named.keys() == gradients.keys()
    norm = np.linalg.norm
    total = norm([norm(value) for value in named.values()])
    assert norm([norm(gradients[name] - named[name]) for name in named]) < 1e-5 * total
    for name, value in named.items():
        # The bias of the keys shifts all scores equally, so its gradient is only rounding.
        is_rounding = name in ('answer.word_key.bias', 'answer.key.bias')
        assert is_rounding or norm(value) > 1e-7 * total, name
        # This is more than rounding: a ReLU with an input near zero may be active on one side only.
        assert is_rounding or norm(gradients[name] - value) < 1e-2 * norm(value), name


def test_what_is_masked_completely_gives_the_same_on_both_sides(jax_model, torch_model, batch):
    """The rule on both sides: a query that may attend to nothing gets zeros."""
    masked = {name: array.copy() for name, array in batch.items()}
    masked['segment_mask'][1] = False  # a video without segments
    masked['word_mask'][0, 2] = False  # a question without words

    @jax.jit
    def run(model, batch):
        return answering.answer(model, batch, is_open=True)[1]

    output = run(jax_model, masked)
    with torch.no_grad():
        expected = torch_model(inputs.torch_batch(masked))
    for name in expected._fields:
        ours = np.asarray(getattr(output, name))
        theirs = getattr(expected, name).unflatten(0, (VIDEOS, QUESTIONS)).numpy()
        assert np.isfinite(ours).all() and np.isfinite(theirs).all(), name
        # The third question of the first video is left out: positions of padding differ.
        rest = [np.concatenate([side[1], side[0, :2]]) for side in (ours, theirs)]
        check_close(*rest)


def test_the_universal_encoder_equals_the_references(small, batch):
    torch.manual_seed(0)
    torch_model = universal_encoder.UniversalEncoder(small).eval()
    with torch.no_grad():
        for predictor in (torch_model.rhythm_predictor, torch_model.source_predictor):
            predictor.norm.running_mean.normal_(0, 0.3)
            predictor.norm.running_var.uniform_(0.5, 2)
        expected = torch_model(*(torch.tensor(batch[name]) for name in ('frames', 'log_mel')))
    abstract = nnx.eval_shape(lambda: pretrain.build(small, nnx.Rngs(0)))
    assert isinstance(abstract, UniversalEncoder)
    jax_model = weights.fill(abstract, torch_model, small)
    found = jax.jit(lambda model, *x: model(*x))(jax_model, batch['frames'], batch['log_mel'])
    for name, value in expected.items():
        check_close(getattr(found, name), value)
