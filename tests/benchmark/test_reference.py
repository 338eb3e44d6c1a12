"""The model against an implementation in PyTorch that was written from its equations."""

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
from amuse_jax.models.amuse import Amuse, AmuseConfig
from amuse_jax.models.universal_encoder import UniversalEncoder
from amuse_jax.training import state
from amuse_jax.training.pretrain import stage as pretrain
from amuse_jax.training.train import answering

VIDEOS, QUESTIONS = 2, 3


@pytest.fixture(scope='module')
def batch(small):
    """Videos of which one lacks its last segment, and questions about them."""
    found = inputs.draw(small, VIDEOS, QUESTIONS)
    found['segment_mask'][1, -1] = False
    return found


@pytest.fixture(scope='module')
def theirs(small):
    return reference.Amuse(small, inputs.phrases()).eval()


@pytest.fixture(scope='module')
def ours(small, theirs):
    sizes, phrases = AmuseConfig.from_settings(small), inputs.phrases()
    abstract = nnx.eval_shape(lambda: Amuse(sizes, phrases, rngs=nnx.Rngs(0)))
    return weights.fill(abstract, theirs, small)


@pytest.fixture(scope='module')
def found(small, ours, batch):
    """What our side makes of the batch: answers, loss, and gradients by name; one program."""
    structure, params, frozen = state.split(ours, small.train.trainable)

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


def close(ours, theirs):
    """Equal within a share of the largest value."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()


def test_every_output_is_the_references(found, theirs, batch):
    for question in range(QUESTIONS):
        with torch.no_grad():
            expected = theirs(inputs.sample(batch, question))
        for name in expected._fields:
            close(getattr(found[0], name)[:, question], getattr(expected, name))


def test_answers_depend_on_every_input(theirs, batch):
    """Else agreement would say nothing about what is not looked at."""
    sample = inputs.sample(batch, 0)
    with torch.no_grad():
        right = theirs(sample).logits
        for name in sample.keys() - {'answers', 'segment_mask', 'word_mask'}:
            other = sample | {name: sample[name].flip(0)}
            assert (theirs(other).logits - right).abs().max() > 1e-4 * right.abs().max(), name


def test_every_gradient_is_the_references(small, found, ours, theirs, batch):
    _, loss, gradients = found
    theirs = copy.deepcopy(theirs)
    trained = weights.train_only(theirs, small, small.train.trainable)
    # A table of positions or token types has rows that no question reads.
    assert sum(x.numel() for x in trained) >= sum(x.size for x in gradients.values())
    expected = 0.0
    for question in range(QUESTIONS):
        sample = inputs.sample(batch, question)
        value = torch.nn.functional.cross_entropy(theirs(sample).logits, sample['answers'])
        (value / QUESTIONS).backward()
        expected += value.item() / QUESTIONS
    assert loss == pytest.approx(expected, rel=1e-5)

    with torch.no_grad():  # the gradients take the weights' places, so that they are named alike
        for parameter in theirs.parameters():
            parameter.copy_(torch.zeros(()) if parameter.grad is None else parameter.grad)
    named = state.split(weights.fill(ours, theirs, small), small.train.trainable)[1]
    assert named.keys() == gradients.keys()
    norm = np.linalg.norm
    total = norm([norm(value) for value in named.values()])
    assert norm([norm(gradients[name] - named[name]) for name in named]) < 1e-5 * total
    for name, value in named.items():
        # A bias of keys moves all scores alike: softmax forgets it, and only rounding is left.
        forgotten = name == 'answer.word_key.bias'
        assert forgotten or norm(value) > 1e-7 * total, name
        # More than rounding: a ReLU whose input is almost zero counts on one side only.
        assert forgotten or norm(gradients[name] - value) < 1e-2 * norm(value), name


def test_the_universal_encoder_is_the_references(small, batch):
    torch.manual_seed(0)
    theirs = universal_encoder.UniversalEncoder(small).eval()
    with torch.no_grad():
        for predictor in (theirs.rhythm_predictor, theirs.source_predictor):
            predictor.norm.running_mean.normal_(0, 0.3)
            predictor.norm.running_var.uniform_(0.5, 2)
        expected = theirs(*(torch.tensor(batch[name]) for name in ('frames', 'log_mel')))
    abstract = nnx.eval_shape(lambda: pretrain.build(small, nnx.Rngs(0)))
    assert isinstance(abstract, UniversalEncoder)
    ours = weights.fill(abstract, theirs, small)
    found = jax.jit(lambda model, *x: model(*x))(ours, batch['frames'], batch['log_mel'])
    for name, value in expected.items():
        close(getattr(found, name), value)
