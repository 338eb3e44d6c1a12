"""Tests of the annotate stage and its report on small synthetic performances."""

import json
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from ml_collections import ConfigDict

from amuse_jax.annotate import stage as annotate
from amuse_jax.annotate import truth
from amuse_jax.errors import StageError
from amuse_jax.music_avqa.vocabulary import INSTRUMENTS

RATE = 32000
VIOLIN, PIANO = INSTRUMENTS.index('violin'), INSTRUMENTS.index('piano')
SECONDS = 24


def clicks(bpm: float, start: float, end: float) -> np.ndarray:
    """Return (samples,) float32 with a decaying tone on every beat from `start` to `end`."""
    samples = np.zeros(SECONDS * RATE, np.float32)
    time = np.arange(4000) / RATE
    tone = (0.5 * np.sin(2 * np.pi * 700 * time) * np.exp(-time * 30)).astype(np.float32)
    for beat in np.arange(start, end, 60 / bpm):
        place = samples[round(beat * RATE) :][: len(tone)]
        place += tone[: len(place)]
    return samples


def write_performance(root: Path, name: str, stems: list[np.ndarray], truth_json: dict) -> None:
    """Write videos/NAME.mp4 (without pictures), truth/NAME.flac and truth/NAME.json."""
    mixture = np.sum(stems, axis=0)[None].astype(np.float32)
    with av.open(str(root / 'videos' / f'{name}.mp4'), 'w') as container:
        stream = container.add_stream('aac', rate=RATE, layout='mono')
        frame = av.AudioFrame.from_ndarray(mixture, format='fltp', layout='mono')
        frame.sample_rate = RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    soundfile.write(root / 'truth' / f'{name}.flac', np.stack(stems, axis=1), RATE)
    (root / 'truth' / f'{name}.json').write_text(json.dumps(truth_json))


def performer(heard: str, channel: int | None, *intervals) -> dict:
    return {'heard_instrument': heard, 'channel': channel, 'intervals': intervals}


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('data')
    (root / 'videos').mkdir()
    (root / 'truth').mkdir()
    changing = clicks(80, 0, 12) + clicks(130, 12, 24)
    write_performance(
        root, 'changing', [changing],
        {'seconds': 24.0, 'tempo': [[0.0, 80], [12.0, 130]],
         'performers': [performer('violin', 0, [0.0, 24.0]), performer('piano', None)]},
    )  # fmt: skip
    write_performance(
        root, 'steady', [clicks(110, 0, 24), clicks(110, 12, 18)],
        {'seconds': 24.0, 'tempo': [[0.0, 110]],
         'performers': [performer('violin', 0, [0.0, 24.0]), performer('piano', 1, [12.0, 18.0])]},
    )  # fmt: skip
    records = [
        {'video_id': 'changing', 'sound_id': 'steady'},
        {'video_id': 'silent', 'sound_id': 'changing'},
    ]
    (root / 'videos.json').write_text(json.dumps(records))
    return root


def settings(root: Path, **changes) -> ConfigDict:
    sections = {
        'data': dict(
            root=str(root),
            videos='',
            segments=4,
            segment_seconds=6.0,
            shard_videos=1,
            workers=1,
            beam='',
            read_seconds=300.0,
            read_gigabytes=4.0,
            part='',
        ),
        'rhythm': dict(segment_seconds=6.0, threshold=0.25, sample_rate=22050, tracker='tempo'),
        'sources': dict(stems='truth', weights='', window_seconds=1.0, threshold_db=-40.0),
    }
    for name, value in changes.items():
        section, field = name.split('__')
        sections[section][field] = value
    return ConfigDict(sections)


def test_annotations_are_in_the_order_of_the_records(data, tmp_path):
    summary = annotate.run(settings(data), tmp_path, {'prepare': data})
    labels, bpm, sources = (np.load(tmp_path / f'{name}.npy') for name in annotate.ARRAYS)
    assert labels.shape == (2, 4) and bpm.shape == (2, 5) and sources.shape == (2, 4, 22)
    assert labels.dtype == bpm.dtype == sources.dtype == np.float32
    np.testing.assert_array_equal(labels, [[0, 0, 0, 0], [0, 1, 0, 0]])
    np.testing.assert_allclose(bpm[0], 110, rtol=0.06)
    np.testing.assert_allclose(bpm[1, :4], [80, 80, 130, 130], rtol=0.06)
    np.testing.assert_allclose(sources[0, :, VIOLIN], 1)
    np.testing.assert_allclose(sources[0, :, PIANO], [0, 0, 1, 0])
    np.testing.assert_allclose(sources[1, :, PIANO], 0)
    assert summary['records'] == 2 and summary['performances'] == 2
    for name in ('rhythm', 'sources'):
        assert summary[name]['precision'] == summary[name]['recall'] == 1.0
    report = json.loads((tmp_path / 'report.json').read_text())
    assert report['segments_per_instrument']['piano'] == 1
    assert report['instruments']['violin']['true'] == 8


def test_a_killed_run_continues_also_in_parallel(data, tmp_path, monkeypatch):
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    annotate.run(settings(data), whole, {'prepare': data})
    annotate.run(settings(data), parts, {'prepare': data})
    kept, missing = sorted((parts / 'shards').iterdir())
    missing.unlink()
    (parts / 'sources.npy').unlink()
    before = kept.stat().st_mtime_ns
    annotate.run(settings(data, data__workers=2), parts, {'prepare': data})
    assert kept.stat().st_mtime_ns == before and missing.exists()
    for name in annotate.ARRAYS:
        np.testing.assert_array_equal(
            np.load(whole / f'{name}.npy'), np.load(parts / f'{name}.npy')
        )


def test_damaged_shard_is_named(data, tmp_path):
    annotate.run(settings(data), tmp_path, {'prepare': data})
    shard = sorted((tmp_path / 'shards').iterdir())[1]
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(StageError, match=rf'{shard.name} is damaged'):
        annotate.run(settings(data), tmp_path, {'prepare': data})


def test_true_stems_need_a_truth_folder(data, tmp_path):
    root = tmp_path / 'real'
    (root / 'videos').mkdir(parents=True)
    (root / 'videos' / 'steady.mp4').symlink_to(data / 'videos' / 'steady.mp4')
    (root / 'videos.json').write_text(json.dumps([{'video_id': 'steady', 'sound_id': 'steady'}]))
    with pytest.raises(StageError, match='has no truth/'):
        annotate.run(settings(root), tmp_path / 'stage', {'prepare': root})


def test_separation_runs_in_a_process_of_its_own(data, tmp_path):
    config = settings(data, sources__stems='uss', sources__weights=str(tmp_path / 'none'))
    with pytest.raises(StageError, match='uss is not installed|needs AudioSet'):
        annotate.run(config, tmp_path, {'prepare': data})


def test_missing_video_is_one_sentence(data, tmp_path):
    (tmp_path / 'videos.json').write_text(json.dumps([{'video_id': 'gone', 'sound_id': 'gone'}]))
    with pytest.raises(StageError, match='gone.mp4 could be read by the prepare stage'):
        annotate.run(settings(data), tmp_path / 'stage', {'prepare': tmp_path})


def test_true_rhythm_changes():
    performance = {
        'seconds': 30.0,
        'tempo': [[0.0, 100.0], [10.0, 140.0]],  # most of the second segment has the first tempo
        'performers': [performer('cello', 0, [0.0, 22.0])],
    }
    changes = truth.rhythm_changes(performance, 6, 6.0, 0.25)
    # It changes to 140 after segment 2 and to silence after segment 4; segment 6 is padding.
    np.testing.assert_array_equal(changes, [0, 1, 0, 1, 0, 0])
    np.testing.assert_array_equal(
        truth.active(performance, 6, 6.0)[:, INSTRUMENTS.index('cello')], [1, 1, 1, 1, 0, 0]
    )


def test_precision_and_recall():
    found, true = np.array([1, 1, 0, 0, 1], bool), np.array([1, 0, 1, 0, 1], bool)
    result = truth.score(found, true).to_json()
    assert result == {'found': 3, 'true': 3, 'both': 2, 'precision': 0.6667, 'recall': 0.6667}
    nothing = truth.score(np.zeros(3, bool), np.zeros(3, bool))
    assert nothing.precision == nothing.recall == 0.0


def test_a_video_that_can_no_longer_be_read_is_named_and_stops_nothing(data, tmp_path):
    root = tmp_path / 'set'
    shutil.copytree(data, root)
    (root / 'videos/changing.mp4').write_bytes(b'no video' * 1000)
    summary = annotate.run(settings(root, data__workers=2), tmp_path / 'stage', {'prepare': root})
    assert list(summary['unreadable']) == ['changing']
    assert summary['unreadable']['changing'].startswith('the file is not a video')
    labels, bpm, sources = (np.load(tmp_path / f'stage/{name}.npy') for name in annotate.ARRAYS)
    assert bpm[0].min() > 100 and sources[0].any()
    assert not labels[1].any() and not bpm[1].any() and not sources[1].any()


@pytest.mark.parametrize(
    ('content', 'is_named'),
    [
        ('{"boxes": {"seconds": [], "boxes": []}}', False),  # of a user who has boxes alone
        ('{"tempo": [], "seconds": 24.0, "performers": []}', True),
        ('{"tempo": [[0, 90]], "seconds": 24.0, "performers": [{"heard_instrument": "x"}]}', True),
        ('[1, 2]', True),
        ('{"tempo": ', True),
        ('[' * 100_000, True),
    ],
)
def test_a_truth_of_another_form_stops_nothing_where_it_is_only_compared(
    data, tmp_path, caplog, content, is_named
):
    root = tmp_path / 'data'
    shutil.copytree(data, root)
    annotate.run(settings(root), tmp_path / 'whole', {'prepare': root})
    (root / 'truth/changing.json').write_text(content)
    folder = tmp_path / 'again'  # with labels that are made already, and compared anew
    shutil.copytree(tmp_path / 'whole/shards', folder / 'shards')
    summary = annotate.run(settings(root), folder, {'prepare': root})
    assert summary['performances'] == 1
    assert ('changing are not compared with' in caplog.text) == is_named


@pytest.mark.parametrize(
    'performers', [None, [{'channel': 7, 'heard_instrument': 'violin'}], [performer('kazoo', 0)]]
)
def test_true_stems_without_their_instruments_are_one_sentence(data, tmp_path, performers):
    root = tmp_path / 'data'
    shutil.copytree(data, root)
    (root / 'truth/steady.json').write_text(json.dumps({'performers': performers}))
    with pytest.raises(StageError, match='steady.json does not say which instrument'):
        annotate.run(settings(root), tmp_path / 'run', {'prepare': root})
