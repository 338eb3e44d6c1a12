"""The rows of the peers, in JAX alone."""

import numpy as np
import pytest

from amuse_jax.benchmark import comparison, peers, report, rows
from amuse_jax.errors import StageError
from tests.benchmark import small as sizes


@pytest.fixture(scope='module')
def config():
    config = sizes.get_config()
    config.peer.update(name='pstp_paper', width=16, learning_rate=1e-2)
    config.peer.selection.update(segments=12, top_segments=2, top_patches=3)
    return config


def test_a_forward_pass_counts_its_products_and_answers_every_video(config):
    row = peers.forward(config, with_compile=False, videos=2)
    logits = row.sides['JAX'].run()['logits']
    assert logits.shape == (2, 1, 42) and np.isfinite(logits).all()
    assert row.work == 'PSTP-Net (paper), forward, 2 videos' and row.samples == 2
    one = peers.forward(config, with_compile=False)
    assert row.flops == 2 * one.flops > 0


def test_a_training_step_learns_its_batch(config):
    row = peers.training_step(config, with_compile=False, videos=2)
    losses = [float(row.sides['JAX'].run()['loss']) for _ in range(5)]
    assert losses[-1] < losses[0]
    assert row.flops > 2 * peers.forward(config, with_compile=False, videos=2).flops
    timed = dict(seconds={'JAX': 0.5}, spread={'JAX': 0.0}, samples_per_second={'JAX': 4.0})
    table = report.format_tables([{'work': row.work, 'kind': row.kind, 'samples': 2, **timed}])
    assert 'JAX alone' in table and row.work in table


def test_every_config_has_rows_of_its_own(config):
    assert rows.default_rows(config) == ('peer', 'peer-step')
    amuse = sizes.get_config()
    assert set(rows.ROWS) - set(rows.default_rows(amuse)) == {'peer', 'peer-step'}
    with pytest.raises(StageError, match='config.peer.name is empty; use a config such as'):
        peers.forward(amuse, with_compile=False)
    assert peers.JAX_ALONE not in (comparison.WORK, comparison.RESULT)
