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
    row = towers.compare(part, work, small, with_compile=False)
    has_windows = part in ('visual', 'audio')
    assert row.sides.keys() == {'JAX', 'PyTorch'} | ({'PyTorch SDPA'} if has_windows else set())
    assert row.kind == comparison.WORK
    found = comparison.measure(row, 'float32', 1, PRODUCT)
    assert found['samples'] == {'visual': 3, 'audio': 3, 'text': 5, 'adapters': 1}[part]
    assert found['compile_seconds']['JAX'] > 0
    if work == 'gradient':
        norms = [side.run()['norm of the gradient'] for side in row.sides.values()]
        assert norms[0] > 0 and norms[0] == pytest.approx(norms[1], rel=1e-4)
    with FlopCounterMode(display=False) as counter:
        row.sides['PyTorch'].run()
    # JAX resizes spectrograms from 101 to 128 frames by a matrix product, and so their gradient.
    resizing = 2 * 3 * 128 * 101 * small.audio.mels if part == 'audio' else 0
    resizing *= 1 + (work == 'gradient')
    # For a gradient, PyTorch's fused attention recomputes its scores. Window attention is not
    # fused.
    recomputed = (
        score_flops(small, part) if work == 'gradient' and part in ('text', 'adapters') else 0
    )
    # JAX multiplies the two last weights of each source of each modality once for all tokens, and
    # the tokens by the result only.
    size = small.model.adapters
    folding = 2 * 3 * 2 * (size.mlp_width + 1) * size.width * 2 * size.width
    tokens = small.data.segments * (16 + 16) + small.model.text.max_words
    folding -= 2 * 2 * tokens * (2 * size.width**2 - size.mlp_width * size.width)
    folding *= (part == 'adapters') * (3 if work == 'gradient' else 1)
    assert row.flops - resizing - folding == pytest.approx(
        counter.get_total_flops() - recomputed, rel=0.001
    )


@pytest.mark.parametrize('part', towers.FROZEN_PARTS)
def test_a_frozen_tower_computes_no_position_bias(small, part):
    row = towers.compare(part, 'frozen', small, with_compile=False)
    assert row.sides.keys() == {'JAX', 'PyTorch SDPA'} and row.kind == comparison.RESULT
    assert comparison.measure(row, 'float32', 1, PRODUCT)['times_faster'].keys() == {'PyTorch SDPA'}
    again = towers.compare(part, 'forward', small, with_compile=False)
    flops = []
    for each in (row, again):
        with FlopCounterMode(display=False) as counter:
            each.sides['PyTorch SDPA'].run()
        flops.append(counter.get_total_flops())
    model = small.model[part]
    # 3 by 3 offsets of a window of 2 by 2 tokens; 512 hidden channels in every block.
    of_biases = sum(2 * 9 * 512 * (2 + h) * d for h, d in zip(model.heads, model.depths))
    assert flops[1] - flops[0] == (of_biases if part == 'visual' else 0)


@pytest.mark.parametrize(('part', 'samples'), [('visual', 6), ('text', 10), ('adapters', 2)])
def test_rows_take_several_videos(small, part, samples):
    row = towers.compare(part, 'forward', small, with_compile=False, videos=2)
    assert comparison.measure(row, 'float32', 1, PRODUCT)['samples'] == samples
    assert row.work != towers.compare(part, 'forward', small, with_compile=False).work


def score_flops(small, part):
    """Return the FLOPs of all products of queries and keys in one forward pass."""
    words = small.model.text.max_words
    if part == 'text':
        return 2 * 5 * small.model.text.depth * words**2 * small.model.text.width
    segments, tokens = 3, 16  # visual and audio tokens per segment in stage 3
    within = 2 * segments * tokens**2
    with_words = 4 * segments * tokens * words
    return 2 * (within + with_words) * small.model.adapters.width


def test_flops_equal_those_of_the_summary(small):
    row = towers.compare('visual', 'forward', small, with_compile=False)
    rows = {row.part: row.flops for row in summary.describe(small)}
    assert row.flops == rows['visual tower']


def test_gradients_that_differ_are_refused(small, monkeypatch):
    """They are refused even if the losses are equal."""
    correct_output = reference.output

    def wrong_output(*args):
        output = correct_output(*args)
        return output + 0.1 * (output - output.detach())

    monkeypatch.setattr(reference, 'output', wrong_output)
    row = towers.compare('text', 'gradient', small, with_compile=False)
    with pytest.raises(StageError, match='norm of the gradient of JAX and of PyTorch differ'):
        comparison.measure(row, 'float32', 1, PRODUCT)


def test_no_gradient_remains_for_the_next_run(small, monkeypatch):
    built, build = [], towers._build_torch
    monkeypatch.setattr(
        towers, '_build_torch', lambda *args: built.append(build(*args)) or built[0]
    )
    row = towers.compare('text', 'gradient', small, with_compile=False)
    assert row.sides['PyTorch'].run()['norm of the gradient'] > 0
    assert all(parameter.grad is None for parameter in built[0].parameters())


def test_sides_that_differ_are_refused(small, monkeypatch):
    correct_output = reference.output
    monkeypatch.setattr(reference, 'output', lambda *args: correct_output(*args) * 1.02)
    row = towers.compare('text', 'forward', small, with_compile=False)
    with pytest.raises(StageError, match='output 0 of JAX and of PyTorch differ by 2.0e-02'):
        comparison.measure(row, 'float32', 1, PRODUCT)


def test_rows_are_named_after_published_sizes(small):
    assert towers.title(v1.get_config(), 'visual', 'forward', 10) == (
        'Swin-V2-L forward, 10 frames'
    )
    assert towers.title(small, 'visual', 'forward', 3) == 'Swin-V2 forward, 3 frames'
