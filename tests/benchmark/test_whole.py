"""The rows of the whole model."""

import types

import pytest
import torch

from amuse_jax.benchmark import comparison, inputs, whole


@pytest.mark.slow
def test_five_questions_are_compared_with_sides_that_answer_five(small):
    row = whole.five_questions(small, with_compile=False)
    seconds = {'JAX': 2.0, 'JAX one by one': 4.0, 'JAX one question': 1.0, 'PyTorch': 5.0}
    assert row.sides.keys() == seconds.keys() and row.kind == comparison.RESULT
    assert row.seconds(seconds) == {'JAX': 2.0, 'JAX one by one': 4.0, 'PyTorch': 5.0}
    assert row.extra(seconds) == {'of_one_question': 2.0, 'one_question_seconds': 1.0}
    found = {name: side.run() for name, side in row.sides.items()}
    counts = {name: len(answers) for name, answers in found.items()}
    assert counts == {name: 1 if name == 'JAX one question' else 5 for name in seconds}
    assert row.samples == 5


@pytest.mark.slow
def test_all_figures_of_an_epoch_are_per_question(small):
    row = whole.epoch(small, with_compile=False)
    step = whole.training_step(small, with_compile=False)
    seconds = {'JAX': 10.0, 'JAX storing': 40.0, 'PyTorch': 7.0}
    assert row.sides.keys() == seconds.keys() and row.kind == comparison.RESULT
    epochs, count = small.train.epochs, small.train.questions
    each = row.seconds(seconds)
    assert each == {'JAX': pytest.approx((10 + 40 / epochs) / count), 'PyTorch': 7.0}
    # The towers run once for all questions and epochs.
    assert 0.1 * step.flops < row.flops < step.flops


class Answerer(torch.nn.Module):
    """A model with the same scores for every question."""

    def __init__(self):
        super().__init__()
        self.scores = torch.nn.Parameter(torch.zeros(1, 42))

    def forward(self, sample):
        return types.SimpleNamespace(logits=self.scores)


def test_no_gradient_remains_for_the_next_run(small):
    model, batch = Answerer(), inputs.random_batch(small)
    side = whole._torch_training(small, model, batch, with_compile=False)['PyTorch']
    losses = [side.run()['loss'] for _ in range(2)]
    assert losses[1] < losses[0] and model.scores.grad is None
