"""The annotate stage with Universal Source Separation: the real networks, one worker per device."""

import json

import numpy as np
import pytest

from amuse_jax.annotate import stage as annotate
from amuse_jax.music_avqa.vocabulary import INSTRUMENTS
from tests.annotate.test_stage import clicks, performer, settings, write_performance
from tests.pretrained.test_separation import needs_uss, write_weights

VIOLIN = INSTRUMENTS.index('violin')


@needs_uss
@pytest.mark.parametrize('stems', ['uss', 'uss-tags'])
def test_two_devices_annotate_with_random_weights(tmp_path, monkeypatch, caplog, stems):
    """Names imitate two GPUs: each of the workers gets one, and computes on the CPU."""
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0,1')
    for name in ('videos', 'truth', 'weights'):
        (tmp_path / name).mkdir()
    write_weights(tmp_path / 'weights')
    truth = {'seconds': 24.0, 'tempo': [[0.0, 80]], 'performers': [performer('violin', 0, [0, 24])]}
    for name in ('a', 'b'):
        write_performance(tmp_path, name, [clicks(80, 0, 3)], truth)
    records = [{'video_id': name, 'sound_id': name} for name in ('a', 'b')]
    (tmp_path / 'videos.json').write_text(json.dumps(records))
    config = settings(
        tmp_path,
        data__segments=1,
        data__segment_seconds=4.0,
        sources__stems=stems,
        sources__weights=str(tmp_path / 'weights'),
        sources__threshold_db=-90.0,
        sources__threshold_score=0.2,
    )
    with caplog.at_level('INFO', logger='absl'):
        annotate.run(config, tmp_path / 'annotate', {'prepare': tmp_path})
    found = np.load(tmp_path / 'annotate/sources.npy')
    assert found.shape == (2, 1, 22)
    assert (found[..., VIOLIN] > 0.5).all() and not np.delete(found, VIOLIN, axis=2).any()
    assert ('source separation of 2 sounds takes about' in caplog.text) == (stems == 'uss')
    assert ('with 2 workers' in caplog.text) == (stems == 'uss')


def test_the_estimate_of_v1():
    """9,288 sounds of 30 pieces on eight GPUs."""
    text = annotate.estimate(9288, 60.0, 8, 0.01, 0.05)
    assert '9,288 sounds takes about 1.1 hours with 8 workers' in text  # 0.11 s a piece
    assert 'at most 10.7;' in text and 'stems=uss-tags) 0.1.' in text
