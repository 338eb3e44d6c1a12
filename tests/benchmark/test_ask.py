"""The row of `amuse ask`."""

import pytest

from amuse_jax.benchmark import ask, comparison, report, whole


@pytest.mark.slow
def test_a_question_about_a_watched_video_runs_no_tower_again(small):
    row = ask.compare(small, with_compile=False)
    medians = {'JAX': 1.0, 'JAX watching': 4.0, 'PyTorch watching': 6.0, 'PyTorch SDPA': 2.0}
    assert row.sides.keys() == medians.keys() and row.kind == comparison.RESULT
    assert row.seconds(medians) == {'JAX': 1.0, 'PyTorch SDPA': 2.0}
    figures = row.extra(medians)
    assert figures == {
        'watching_seconds': {'JAX': 4.0, 'PyTorch': 6.0},
        'first_question_seconds': {'JAX': 5.0, 'PyTorch SDPA': 8.0},
    }
    line = report.format_row({'work': row.work, 'dtype': 'float32', 'allocator': 'kept', **figures})
    assert line == (
        'a further question about a watched video [float32, kept]: watching JAX 4 s; watching '
        'PyTorch 6 s; first question JAX 5 s; first question PyTorch SDPA 8 s'
    )
    assert 0 < row.flops < whole.forward(small, with_compile=False).flops
    results = {name: row.sides[name].run() for name in row.seconds(medians)}
    comparison.check_agreement(row.work, results, comparison.TOLERANCES['float32'])
