"""The rows of the whole model."""

import types

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from amuse_jax.benchmark import comparison, epoch, inputs, whole


@pytest.mark.slow
def test_five_questions_are_compared_with_sides_that_answer_five(small):
    row = whole.five_questions(small, with_compile=False)
    seconds = {'JAX': 2.0, 'JAX one by one': 4.0, 'JAX one question': 1.0, 'PyTorch SDPA': 5.0}
    assert row.sides.keys() == seconds.keys() and row.kind == comparison.RESULT
    assert row.seconds(seconds) == {'JAX': 2.0, 'JAX one by one': 4.0, 'PyTorch SDPA': 5.0}
    assert row.extra(seconds) == {'of_one_question': 2.0, 'one_question_seconds': 1.0}
    found = {name: side.run() for name, side in row.sides.items()}
    counts = {name: len(answers) for name, answers in found.items()}
    assert counts == {name: 1 if name == 'JAX one question' else 5 for name in seconds}
    assert row.samples == 5


@pytest.mark.slow
def test_all_figures_of_an_epoch_are_per_question(small):
    row = epoch.compare(small, with_compile=False)
    step = whole.training_step(small, with_compile=False)
    seconds = {'JAX': 10.0, 'JAX storing': 40.0, 'PyTorch storing': 60.0, 'PyTorch SDPA': 7.0}
    assert row.sides.keys() == seconds.keys() and row.kind == comparison.RESULT
    epochs, count = small.train.epochs, small.train.questions
    assert row.seconds(seconds) == {
        'JAX': pytest.approx((10 + 40 / epochs) / count),
        'PyTorch SDPA': pytest.approx((7 + 60 / epochs) / count),
    }
    # The towers run once for all questions and epochs.
    assert 0.1 * step.flops < row.flops < step.flops


@pytest.mark.slow
def test_the_reference_does_no_more_work_in_an_epoch_than_jax(small):
    """Its step runs neither the frozen towers nor a question's shared layers again."""
    row = epoch.compare(small, with_compile=False, videos=2)
    flops = {}
    for name in ('PyTorch SDPA', 'PyTorch storing'):
        with FlopCounterMode(display=False) as counter:
            row.sides[name].run()
        flops[name] = counter.get_total_flops()
    questions, epochs = small.train.questions, small.train.epochs
    each = (flops['PyTorch SDPA'] + flops['PyTorch storing'] / epochs) / (2 * questions)
    assert each == pytest.approx(row.flops, rel=0.15)  # PyTorch computes some scores twice


class Answerer(torch.nn.Module):
    """A model with the same scores for every question."""

    def __init__(self):
        super().__init__()
        self.scores = torch.nn.Parameter(torch.zeros(1, 42))

    def forward(self, sample):
        return types.SimpleNamespace(logits=self.scores)


def test_no_gradient_remains_for_the_next_run(small):
    model, batch = Answerer(), inputs.random_batch(small)
    side = whole.torch_training(small, model, batch, comparison.WORK, with_compile=False)['PyTorch']
    losses = [side.run()['loss'] for _ in range(2)]
    assert losses[1] < losses[0] and model.scores.grad is None
