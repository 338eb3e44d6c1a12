import pytest
from torch.utils.flop_counter import FlopCounterMode

from amuse_jax.benchmark import comparison, timing, towers
from amuse_jax.benchmark.reference import towers as reference
from amuse_jax.errors import StageError
from amuse_jax.models import summary
from configs import v1

PRODUCT = timing.Product('a product', 100.0, lambda: None, {})


@pytest.mark.parametrize(
    ('part', 'work'),
    [(part, work) for work in ('forward', 'gradient') for part in towers.PARTS],
)
def test_both_sides_agree_and_do_the_same_work(small, part, work):
    made = towers.compare(part, work, small, with_compile=False)
    assert made.sides.keys() == {'JAX', 'PyTorch'}
    found = comparison.measure(made, 'float32', 1, PRODUCT)
    assert found['samples'] == {'visual': 3, 'audio': 3, 'text': 5, 'adapters': 1}[part]
    assert found['compile_seconds']['JAX'] > 0
    if work == 'gradient':
        norms = [side.run()['norm of the gradient'] for side in made.sides.values()]
        assert norms[0] > 0 and norms[0] == pytest.approx(norms[1], rel=1e-4)
    with FlopCounterMode(display=False) as counter:
        made.sides['PyTorch'].run()
    # Ours resizes spectra of 101 frames to 128 by a product, and so their norm's gradient.
    resizing = 2 * 3 * 128 * 101 * small.audio.mels if part == 'audio' else 0
    resizing *= 1 + (work == 'gradient')
    # For a gradient, PyTorch's fused attention computes its scores again; windows' is not fused.
    again = scores(small, part) if work == 'gradient' and part in ('text', 'adapters') else 0
    assert made.flops - resizing == pytest.approx(counter.get_total_flops() - again, rel=0.001)


def scores(small, part):
    """FLOPs of all products of queries and keys, in one pass."""
    words = small.model.text.max_words
    if part == 'text':
        return 2 * 5 * small.model.text.depth * words**2 * small.model.text.width
    segments, tokens = 3, 16  # of video and of sound, where the towers meet
    within = 2 * segments * tokens**2
    with_words = 4 * segments * tokens * words
    return 2 * (within + with_words) * small.model.adapters.width


def test_flops_are_those_of_the_summary(small):
    made = towers.compare('visual', 'forward', small, with_compile=False)
    rows = {row.part: row.flops for row in summary.describe(small)}
    assert made.flops == rows['visual tower']


def test_gradients_that_differ_are_refused(small, monkeypatch):
    """Though the losses are equal."""
    right = reference.output

    def wrong(*args):
        output = right(*args)
        return output + 0.1 * (output - output.detach())

    monkeypatch.setattr(reference, 'output', wrong)
    made = towers.compare('text', 'gradient', small, with_compile=False)
    with pytest.raises(StageError, match='norm of the gradient of JAX and of PyTorch differ'):
        comparison.measure(made, 'float32', 1, PRODUCT)


def test_no_gradient_is_left_for_the_next_runs_peak(small, monkeypatch):
    built, right = [], towers._theirs
    monkeypatch.setattr(towers, '_theirs', lambda *args: built.append(right(*args)) or built[0])
    made = towers.compare('text', 'gradient', small, with_compile=False)
    assert made.sides['PyTorch'].run()['norm of the gradient'] > 0
    assert all(parameter.grad is None for parameter in built[0].parameters())


def test_sides_that_differ_are_refused(small, monkeypatch):
    right = reference.output
    monkeypatch.setattr(reference, 'output', lambda *args: right(*args) * 1.02)
    made = towers.compare('text', 'forward', small, with_compile=False)
    with pytest.raises(StageError, match='output 0 of JAX and of PyTorch differ by 2.0e-02'):
        comparison.measure(made, 'float32', 1, PRODUCT)


def test_rows_are_named_after_published_sizes(small):
    assert towers.title(v1.get_config(), 'visual', 'forward', 10) == (
        'Swin-V2-L forward, 10 frames'
    )
    assert towers.title(small, 'visual', 'forward', 3) == 'Swin-V2 forward, 3 frames'
