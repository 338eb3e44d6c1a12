"""What the rows of the whole model say of their sides."""

import types

import pytest
import torch

from amuse_jax.benchmark import comparison, inputs, whole


@pytest.mark.slow
def test_five_questions_are_set_beside_what_answers_five(small):
    made = whole.five_questions(small, with_compile=False)
    seconds = {'JAX': 2.0, 'JAX one by one': 4.0, 'JAX one question': 1.0, 'PyTorch': 5.0}
    assert made.sides.keys() == seconds.keys() and made.kind == comparison.RESULT
    assert made.seconds(seconds) == {'JAX': 2.0, 'JAX one by one': 4.0, 'PyTorch': 5.0}
    assert made.more(seconds) == {'of_one_question': 2.0, 'one_question_seconds': 1.0}
    found = {name: side.run() for name, side in made.sides.items()}
    counts = {name: len(answers) for name, answers in found.items()}
    assert counts == {name: 1 if name == 'JAX one question' else 5 for name in seconds}
    assert made.samples == 5


@pytest.mark.slow
def test_an_epochs_figures_are_all_per_question(small):
    made = whole.epoch(small, with_compile=False)
    step = whole.training_step(small, with_compile=False)
    seconds = {'JAX': 10.0, 'JAX storing': 40.0, 'PyTorch': 7.0}
    assert made.sides.keys() == seconds.keys() and made.kind == comparison.RESULT
    epochs, count = small.train.epochs, small.train.questions
    each = made.seconds(seconds)
    assert each == {'JAX': pytest.approx((10 + 40 / epochs) / count), 'PyTorch': 7.0}
    # The towers run once for all questions and epochs, and not again for each of them.
    assert 0.1 * step.flops < made.flops < step.flops


class Answerer(torch.nn.Module):
    """The same scores, whatever is asked."""

    def __init__(self):
        super().__init__()
        self.scores = torch.nn.Parameter(torch.zeros(1, 42))

    def forward(self, sample):
        return types.SimpleNamespace(logits=self.scores)


def test_no_gradient_is_left_for_the_next_runs_peak(small):
    model, batch = Answerer(), inputs.draw(small)
    side = whole._torch_training(small, model, batch, with_compile=False)['PyTorch']
    losses = [side.run()['loss'] for _ in range(2)]
    assert losses[1] < losses[0] and model.scores.grad is None
