import multiprocessing
import os
import signal
import struct
import time

import numpy as np
import pytest

from amuse_jax.data import records
from amuse_jax.errors import StageError
from amuse_jax.media import guarded, video
from tests.data.small_set import run, settings, write_small_set

PATIENT = guarded.Limits(seconds=300, gigabytes=4)


@pytest.fixture
def reader():
    with guarded.Reader(PATIENT) as reader:
        yield reader


@pytest.fixture
def film(media, tmp_path):
    return media.write(tmp_path / 'film.mp4', media.Picture(), media.Sound())


def readers():
    """The processes that this one has running for its readers."""
    children = multiprocessing.active_children()
    return [child for child in children if child.name == guarded.PROCESS]


def test_the_same_arrays_as_in_this_process(reader, film):
    for function, *arguments in (
        (video.read_segment_frames, 4, 1.0, 16),
        (video.read_audio, 16000, 4.0),
    ):
        found = reader.read(function, film, *arguments)
        for array, expected in zip(found, function(film, *arguments), strict=True):
            assert array.dtype == np.asarray(expected).dtype
            np.testing.assert_array_equal(array, expected)


def test_one_process_reads_file_after_file(reader, film, tmp_path):
    reader.read(video.read_frames, film, [0.5], 16)
    (process,) = readers()
    with pytest.raises(video.MediaError, match='the file does not exist'):
        reader.read(video.read_frames, tmp_path / 'nowhere', [0.5], 16)
    reader.read(video.read_frames, film, [0.5], 16)
    assert readers() == [process]
    reader.close()
    assert not readers()


@pytest.mark.parametrize('number', [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_a_reader_that_is_killed_by_its_file(number, reader, film):
    expected = rf'^its reader was killed by signal {int(number)} \('
    for _ in range(2):  # a new reader, and one that has read before
        with pytest.raises(video.MediaError, match=expected):
            reader.read(signal.raise_signal, number)
        assert len(reader.read(video.read_frames, film, [0.5], 16)) == 2


def test_an_error_nobody_thought_of_is_that_files(reader, film, capfd):
    with pytest.raises(video.MediaError, match='ended with exit status 1'):
        reader.read(os.listdir, 'no such folder')
    assert 'FileNotFoundError' in capfd.readouterr().err
    assert len(reader.read(video.read_frames, film, [0.5], 16)) == 2


def test_a_reader_killed_from_outside_costs_nothing(reader, film):
    expected = reader.read(video.read_frames, film, [0.5], 16)
    readers()[0].kill()
    found = reader.read(video.read_frames, film, [0.5], 16)
    np.testing.assert_array_equal(found[0], expected[0])


def test_a_reader_that_hangs(film):
    with guarded.Reader(guarded.Limits(seconds=1, gigabytes=4)) as reader:
        begun = time.monotonic()
        with pytest.raises(video.MediaError, match='^reading it took longer than 1 s$'):
            reader.read(time.sleep, 600)
        assert time.monotonic() - begun < 300
        assert not readers()


def endless_sound(path):
    """A sound file of one and a half seconds with 2**30 samples in each; no disk is taken."""
    rate = 2**30
    size = rate * 3 // 2
    form = struct.pack('<HHIIHH', 1, 1, rate, rate, 1, 8)  # PCM, mono, 8 bits
    header = b'WAVEfmt ' + struct.pack('<I', len(form)) + form + b'data' + struct.pack('<I', size)
    path.write_bytes(b'RIFF' + struct.pack('<I', len(header) + size) + header)
    os.truncate(path, path.stat().st_size + size)
    return path


def test_a_file_that_swells(film, tmp_path):
    with guarded.Reader(guarded.Limits(seconds=300, gigabytes=0.2)) as reader:
        with pytest.raises(video.MediaError, match='allocate|memory'):
            reader.read(video.read_audio, endless_sound(tmp_path / 'a.wav'), 32000, 2.0)
        assert len(reader.read(video.read_audio, film, 32000, 2.0)) == 2


def test_a_file_that_takes_too_long(tmp_path):
    path = endless_sound(tmp_path / 'a.wav')
    with guarded.Reader(guarded.Limits(seconds=0.05, gigabytes=4)) as reader:
        with pytest.raises(video.MediaError, match='took longer than 0.05 s'):
            reader.read(video.read_audio, path, 32000, 2.0)


def test_a_pipe_is_not_waited_for(reader, tmp_path):
    os.mkfifo(tmp_path / 'a.mp4')
    with pytest.raises(video.MediaError, match='it is a folder, a pipe or a device'):
        reader.read(video.read_frames, tmp_path / 'a.mp4', [0.5], 16)


def found_in(folder):
    reader = records.RecordReader(folder / 'records')
    names = [entry['video_id'] for entry in reader.videos]
    return {name: records.encode(reader[index]) for index, name in enumerate(names)}


@pytest.mark.parametrize('beam', ['', '--runner=FnApiRunner'])
def test_a_hanging_reader_costs_prepare_one_video(beam, media, film, tmp_path):
    """It stands still as if the disk had stopped to answer; a new one reads the other videos."""
    if beam:
        pytest.importorskip('apache_beam', reason="the extra 'beam' is not installed")
    root = tmp_path / 'set'
    write_small_set(root, media, 5)
    run(root, tmp_path / 'clean')
    assert not readers()
    changes = dict(read_seconds=8.0, max_broken_share=0.2, beam=beam)
    shared = guarded.shared(guarded.Limits.from_settings(settings(root, **changes).data))
    shared.read(video.read_frames, film, [0.5], 16)
    os.kill(readers()[0].pid, signal.SIGSTOP)
    summary = run(root, tmp_path / 'out', **changes)
    assert not readers()
    assert summary['reasons'] == {'reading it took longer than 8 s': 1}
    expected = found_in(tmp_path / 'clean')
    del expected['v0']
    assert found_in(tmp_path / 'out') == expected


def test_other_limits_make_what_they_kept_out_again(media, film, tmp_path):
    root = tmp_path / 'set'
    write_small_set(root, media, 4)
    shared = guarded.shared(guarded.Limits.from_settings(settings(root, read_seconds=3.0).data))
    shared.read(video.read_frames, film, [0.5], 16)
    os.kill(readers()[0].pid, signal.SIGSTOP)
    with pytest.raises(StageError, match='1 of 4 videos .*v0 .reading it took longer'):
        run(root, tmp_path / 'out', read_seconds=3.0)
    first, second = sorted((tmp_path / 'out/records').glob('0*'))
    before = second.stat().st_mtime_ns
    assert run(root, tmp_path / 'out', read_seconds=300.0)['videos'] == 4
    assert second.stat().st_mtime_ns == before
