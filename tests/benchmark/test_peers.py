"""The rows of the peers, beside PyTorch where there is a description of them."""

import jax
import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from amuse_jax.benchmark import comparison, peers, report, rows, timing
from amuse_jax.benchmark.reference.peers import weights
from amuse_jax.data import train_words
from amuse_jax.errors import StageError
from amuse_jax.models.peers import sizes
from tests.benchmark.small import get_config

PRODUCT = timing.Product('a product', 100.0, lambda: None, {})
SETTINGS = {
    'avst': {},
    'pstp_released': {'width': 16},
    'pstp_paper': {'width': 16},
    'lavish': {'width': 16, 'trainable': r'^(?!swin\.)|^swin\..*norm'},
    'dgsct': {'trainable': '^(adapters|projection|head)'},
}
LARGE = [pytest.param(name, marks=pytest.mark.slow) for name in ('lavish', 'dgsct')]


@pytest.fixture(scope='module', autouse=True)
def quick_compilation():
    """Turn off most optimisations: the models are tiny, so compilation takes most of the time."""
    jax.config.update('jax_disable_most_optimizations', True)
    yield
    jax.config.update('jax_disable_most_optimizations', False)


def small(name, **settings):
    config = get_config()
    config.data.update(segments=2, image_size=32)
    config.model.visual.update(image_size=32, depths=(1, 1, 2, 1))
    config.model.audio.update(depths=(1, 1, 1, 1))
    config.loop.optimization_level = 0
    config.peer.update(name=name, inputs='towers', reads_with_lstm=True, learning_rate=1e-2)
    config.peer.selection.update(segments=2, top_segments=1, top_patches=1)
    config.peer.adapter.update(latents=3, reduction=2, groups=2, audio_gate=name != 'dgsct')
    config.peer.update(settings)
    return config


@pytest.mark.parametrize('name', ['avst', 'pstp_released', 'pstp_paper', *LARGE])
def test_both_sides_answer_equally_and_learn_equally(name):
    """The second loss of both sides is equal only if the first gradient and Adam's step are."""
    config = small(name, **SETTINGS[name])
    row = peers.forward(config, with_compile=False, videos=2)
    assert row.kind == comparison.WORK and row.sides.keys() == {'JAX', 'PyTorch'}
    logits = row.sides['JAX'].run()['logits']
    assert logits.shape == (2, 42) and np.isfinite(logits).all()
    assert comparison.measure(row, 'float32', 1, PRODUCT)['samples'] == 2
    row = peers.training_step(config, with_compile=False, videos=2)
    losses = [float(row.sides['JAX'].run()['loss']) for _ in range(2)]
    for loss in losses:
        assert row.sides['PyTorch'].run()['loss'] == pytest.approx(loss, rel=1e-3)
    assert losses[0] != pytest.approx(losses[1], rel=1e-2)


@pytest.mark.parametrize('name', ['avst', 'pstp_paper', LARGE[1]])
def test_both_sides_compute_the_same_products(name):
    config = small(name, **SETTINGS[name])
    row = peers.forward(config, with_compile=False)
    with FlopCounterMode(display=False) as counter:
        row.sides['PyTorch'].run()
    chosen = sizes.from_settings(config)
    width = chosen.width if name == 'pstp_paper' else chosen.head.width
    of_lstm = 2 * train_words.LENGTH * 8 * width**2  # PyTorch's counter leaves LSTMs out
    resizing = 0  # JAX resizes log-mels by a matrix product
    if name == 'dgsct':
        _, segments, frames, mels = sizes.abstract_inputs(config)['audio'].shape
        resizing = 2 * segments * frames * chosen.audio.frames * mels
    expected = counter.get_total_flops() + of_lstm + resizing
    assert row.flops == pytest.approx(expected, rel=0.02)


def test_the_same_parameters_are_trained():
    config = small('lavish', **SETTINGS['lavish'])
    model, reference = peers.build_pair(config)
    weights.set_trainable('lavish', model.config, reference, config.peer.trainable)
    trained = {name for name, x in reference.named_parameters() if x.requires_grad}
    assert not any('.mlp.' in name or '.attn.' in name for name in trained)
    of_tower = {name for name in trained if name.startswith('swin.')}
    assert all('norm' in name for name in of_tower) and 'swin.norm.weight' in of_tower
    count = sum(x.numel() for x in reference.parameters() if x.requires_grad)
    _, params, _ = peers.state.split(model, config.peer.trainable)
    assert count == sum(x.size for x in params.values())


def test_sides_that_differ_are_refused(monkeypatch):
    """A wrong factor of the match is no difference of the answers, and one of the training."""
    config = small('avst')
    right = peers._match_loss
    monkeypatch.setattr(peers, '_match_loss', lambda output: 1.05 * right(output))
    comparison.measure(peers.forward(config, with_compile=False), 'float32', 1, PRODUCT)
    row = peers.training_step(config, with_compile=False)
    with pytest.raises(StageError, match='AVST, training step, one video: loss of JAX and of PyTo'):
        comparison.measure(row, 'float32', 1, PRODUCT)


def test_a_training_step_learns_its_batch():
    config = small('pstp_paper', **SETTINGS['pstp_paper'])
    row = peers.training_step(config, with_compile=False, videos=2)
    losses = [float(row.sides['JAX'].run()['loss']) for _ in range(5)]
    assert losses[-1] < losses[0]
    assert row.flops > 2 * peers.forward(config, with_compile=False, videos=2).flops


def test_a_system_that_was_never_released_has_rows_of_jax_alone():
    config = small('last', width=16)
    row = peers.forward(config, with_compile=False)
    assert row.kind == peers.JAX_ALONE and row.sides.keys() == {'JAX'}
    assert row.sides['JAX'].run()['logits'].shape == (1, 42)
    timed = dict(
        seconds={'JAX': 0.5}, spread={'JAX': 0.0}, samples_per_second={'JAX': 4.0},
        dtype='float32', allocator='kept',
    )  # fmt: skip
    table = report.format_tables([{'work': row.work, 'kind': row.kind, 'samples': 1, **timed}])
    assert 'JAX alone' in table and row.work in table


@pytest.mark.slow
@pytest.mark.parametrize('name', ['avst', 'lavish'])
def test_torch_compile_is_a_side(name):
    config = small(name, **SETTINGS[name])
    row = peers.training_step(config, with_compile=True)
    assert row.sides.keys() == {'JAX', 'PyTorch', 'torch.compile'}
    comparison.measure(row, 'float32', 1, PRODUCT)
    torch.compiler.reset()


def test_every_config_has_rows_of_its_own():
    assert rows.default_rows(small('avst')) == ('peer', 'peer-step')
    amuse = get_config()
    assert set(rows.ROWS) - set(rows.default_rows(amuse)) == {'peer', 'peer-step'}
    with pytest.raises(StageError, match='config.peer.name is empty; use a config such as'):
        peers.forward(amuse, with_compile=False)
    assert peers.JAX_ALONE not in (comparison.WORK, comparison.RESULT)
