import concurrent.futures
import multiprocessing
import os
import signal
import struct
import time

import numpy as np
import pytest

from amuse_jax.data import records
from amuse_jax.errors import StageError
from amuse_jax.media import audio, guarded, video
from tests.data.small_set import run, settings, write_small_set
from tests.media import hostile_replies

PATIENT = guarded.Limits(seconds=300, gigabytes=4)


@pytest.fixture
def reader():
    with guarded.Reader(PATIENT) as reader:
        yield reader


@pytest.fixture
def film(media, tmp_path):
    return media.write(tmp_path / 'film.mp4', media.Picture(), media.Sound())


def reader_processes():
    """Return the running processes that read video files for this one."""
    children = multiprocessing.active_children()
    return [child for child in children if child.name == guarded.PROCESS_NAME]


def test_the_arrays_are_the_same_as_in_this_process(reader, film):
    for function, *arguments in (
        (video.read_segment_frames, 4, 1.0, 16),
        (audio.read_audio, 16000, 4.0),
    ):
        found = reader.read(function, film, *arguments)
        for array, expected in zip(found, function(film, *arguments), strict=True):
            assert array.dtype == np.asarray(expected).dtype
            np.testing.assert_array_equal(array, expected)


def test_one_process_reads_file_after_file(reader, film, tmp_path):
    reader.read(video.read_frames, film, [0.5], 16)
    (process,) = reader_processes()
    with pytest.raises(video.MediaError, match='the file does not exist'):
        reader.read(video.read_frames, tmp_path / 'nowhere', [0.5], 16)
    reader.read(video.read_frames, film, [0.5], 16)
    assert reader_processes() == [process]
    reader.close()
    assert not reader_processes()


@pytest.mark.parametrize('number', [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_a_file_that_kills_its_reader(number, reader, film):
    expected = rf'^its reader was killed by signal {int(number)} \('
    for _ in range(2):  # with a new reader, and with one that has read a file before
        with pytest.raises(video.MediaError, match=expected):
            reader.read(signal.raise_signal, number)
        assert len(reader.read(video.read_frames, film, [0.5], 16)) == 3


def test_an_unexpected_error_costs_only_its_file(reader, film, capfd):
    with pytest.raises(video.MediaError, match='ended with exit status 1'):
        reader.read(os.listdir, 'no such folder')
    assert 'FileNotFoundError' in capfd.readouterr().err
    assert len(reader.read(video.read_frames, film, [0.5], 16)) == 3


def test_a_reader_killed_from_outside_costs_no_file(reader, film):
    expected = reader.read(video.read_frames, film, [0.5], 16)
    reader_processes()[0].kill()
    found = reader.read(video.read_frames, film, [0.5], 16)
    np.testing.assert_array_equal(found[0], expected[0])


def test_a_reader_that_hangs(film):
    with guarded.Reader(guarded.Limits(seconds=1, gigabytes=4)) as reader:
        begun = time.monotonic()
        with pytest.raises(video.MediaError, match='^reading it took longer than 1 s$'):
            reader.read(time.sleep, 600)
        assert time.monotonic() - begun < 300
        assert not reader_processes()


def endless_sound(path):
    """Write a sound file of 1.5 s at 2**30 samples per second; it is sparse and takes no disk."""
    rate = 2**30
    size = rate * 3 // 2
    form = struct.pack('<HHIIHH', 1, 1, rate, rate, 1, 8)  # PCM, mono, 8 bits
    header = b'WAVEfmt ' + struct.pack('<I', len(form)) + form + b'data' + struct.pack('<I', size)
    path.write_bytes(b'RIFF' + struct.pack('<I', len(header) + size) + header)
    os.truncate(path, path.stat().st_size + size)
    return path


def test_a_file_that_takes_too_much_memory(film, tmp_path):
    with guarded.Reader(guarded.Limits(seconds=300, gigabytes=0.2)) as reader:
        with pytest.raises(video.MediaError, match='allocate|memory'):
            reader.read(audio.read_audio, endless_sound(tmp_path / 'a.wav'), 32000, 2.0)
        assert len(reader.read(audio.read_audio, film, 32000, 2.0)) == 2


def test_a_file_that_takes_too_long(tmp_path):
    path = endless_sound(tmp_path / 'a.wav')
    with guarded.Reader(guarded.Limits(seconds=0.05, gigabytes=4)) as reader:
        with pytest.raises(video.MediaError, match='took longer than 0.05 s'):
            reader.read(audio.read_audio, path, 32000, 2.0)


def test_a_pipe_is_not_waited_for(reader, tmp_path):
    os.mkfifo(tmp_path / 'a.mp4')
    with pytest.raises(video.MediaError, match='it is a folder, a pipe or a device'):
        reader.read(video.read_frames, tmp_path / 'a.mp4', [0.5], 16)


def encoded_records(folder):
    reader = records.RecordReader(folder / 'records')
    names = [entry['video_id'] for entry in reader.videos]
    return {name: records.encode(reader[index]) for index, name in enumerate(names)}


@pytest.mark.parametrize('beam', ['', pytest.param('--runner=FnApiRunner', marks=pytest.mark.slow)])
def test_a_hanging_reader_costs_prepare_one_video(beam, media, film, tmp_path):
    """The reader is stopped, as if its disk did not answer; a new one reads the other videos."""
    if beam:
        pytest.importorskip('apache_beam', reason="the extra 'beam' is not installed")
    root = tmp_path / 'set'
    write_small_set(root, media, 5)
    run(root, tmp_path / 'clean')
    assert not reader_processes()
    changes = dict(read_seconds=8.0, max_broken_share=0.2, beam=beam)
    limits = guarded.Limits.from_settings(settings(root, **changes).data)
    guarded.read(limits, video.read_frames, film, [0.5], 16)
    os.kill(reader_processes()[0].pid, signal.SIGSTOP)
    summary = run(root, tmp_path / 'out', **changes)
    assert not reader_processes()
    assert summary['reasons'] == {'reading it took longer than 8 s': 1}
    expected = encoded_records(tmp_path / 'clean')
    del expected['v0']
    assert encoded_records(tmp_path / 'out') == expected


def test_shards_with_videos_set_aside_are_written_again_under_other_limits(media, film, tmp_path):
    root = tmp_path / 'set'
    write_small_set(root, media, 4)
    limits = guarded.Limits.from_settings(settings(root, read_seconds=3.0).data)
    guarded.read(limits, video.read_frames, film, [0.5], 16)
    os.kill(reader_processes()[0].pid, signal.SIGSTOP)
    with pytest.raises(StageError, match='1 of 4 videos .*v0 .reading it took longer'):
        run(root, tmp_path / 'out', read_seconds=3.0)
    first, second = sorted((tmp_path / 'out/records').glob('0*'))
    before = second.stat().st_mtime_ns
    assert run(root, tmp_path / 'out', read_seconds=300.0)['videos'] == 4
    assert second.stat().st_mtime_ns == before


HOSTILE = (
    hostile_replies.long_header,
    hostile_replies.no_json,
    hostile_replies.pickled_objects,
    hostile_replies.unparsable_dtype,
    hostile_replies.huge_array,
    hostile_replies.infinite_size,
    hostile_replies.two_unknown_sizes,
    hostile_replies.impossible_shape,
    hostile_replies.negative_size,
    hostile_replies.longer_array_than_announced,
    hostile_replies.shorter_array_than_announced,
)


def test_replies_that_are_too_large_or_no_arrays(reader, film):
    for function in HOSTILE:
        with pytest.raises(video.MediaError, match='^its reader sent '):
            reader.read(function)
        assert not reader_processes()
    assert len(reader.read(video.read_frames, film, [0.5], 16)) == 3


@pytest.mark.parametrize(
    'function', [hostile_replies.half_a_message, hostile_replies.half_an_array]
)
def test_a_reply_that_stops_in_the_middle(function, film):
    with guarded.Reader(guarded.Limits(seconds=3, gigabytes=4)) as reader:
        begun = time.monotonic()
        with pytest.raises(video.MediaError, match='^reading it took longer than 3 s$'):
            reader.read(function)
        assert time.monotonic() - begun < 60
        assert len(reader.read(video.read_frames, film, [0.5], 16)) == 3


def test_threads_read_at_the_same_time(tmp_path):
    try:
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            arguments = [(tmp_path / name, tmp_path / other) for name, other in ('ab', 'ba')]
            list(
                pool.map(lambda each: guarded.read(PATIENT, hostile_replies.meet, *each), arguments)
            )
        assert len(reader_processes()) == 2
    finally:
        guarded.close_readers()
    assert not reader_processes()
