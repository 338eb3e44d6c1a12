import pytest
from torch.utils.flop_counter import FlopCounterMode

from amuse_jax.benchmark import comparison, timing, towers
from amuse_jax.benchmark.reference import towers as reference
from amuse_jax.models import summary
from amuse_jax.stages import StageError
from configs import v1

PRODUCT = timing.Product('a product', 100.0, lambda: None, {})


@pytest.mark.parametrize(
    ('part', 'work'),
    [*((part, 'forward') for part in towers.PARTS), ('text', 'gradient'), ('adapters', 'gradient')],
)
def test_both_sides_agree_and_do_the_same_work(small, part, work):
    made = towers.compare(part, work, small, with_compile=False)
    assert made.sides.keys() == {'JAX', 'PyTorch'}
    found = comparison.measure(made, 'float32', 1, PRODUCT)
    assert found['samples'] == {'visual': 3, 'audio': 3, 'text': 5, 'adapters': 1}[part]
    assert found['compile_seconds']['JAX'] > 0
    with FlopCounterMode(display=False) as counter:
        made.sides['PyTorch'].run()
    # Ours resizes spectra of 101 frames to 128 by a product.
    resizing = 2 * 3 * 128 * 101 * small.audio.mels if part == 'audio' else 0
    # For a gradient, PyTorch's fused attention computes its scores again.
    again = scores(small, part) if work == 'gradient' else 0
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
