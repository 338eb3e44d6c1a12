"""Functions for a reader's process; a file may make it misuse its pipe like most of them."""

import json
import os
import struct
import sys
import time


def _pipe():
    frame = sys._getframe()
    while 'pipe' not in frame.f_locals:
        frame = frame.f_back
    return frame.f_locals['pipe']


def _announce(*arrays):
    """Announce arrays of these dtypes and shapes, and return the pipe."""
    pipe = _pipe()
    pipe.send_bytes(json.dumps({'arrays': arrays}).encode())
    return pipe


def meet(mine, other):
    """Wait for another reader, which must run at the same time."""
    mine.touch()
    end = time.monotonic() + 120
    while not other.exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    return (1,)


def long_header():
    _pipe().send_bytes(b' ' * 10_000_000)
    return ()


def no_json():
    _pipe().send_bytes(b'[' * 50_000)
    return ()


def pickled_objects():
    _announce(['|O', [1]])
    return ()


def unparsable_dtype():
    _announce(['(1 2)f8, f8', [1]])
    return ()


def huge_array():
    _announce(['<f8', [10**12]])
    return ()


def infinite_size():
    _announce(['<f8', [float('inf')]])
    return ()


def two_unknown_sizes():
    pipe = _announce(['<f8', [-1, -1]])
    pipe.send_bytes(bytes(8))
    return ()


def impossible_shape():
    pipe = _announce(['<f8', [0, 10**30]])
    pipe.send_bytes(b'')
    return ()


def negative_size():
    _announce(['<f8', [-1]], ['<f8', [9]])
    return ()


def longer_array_than_announced():
    pipe = _announce(['<f8', [1]])
    pipe.send_bytes(bytes(10_000_000))
    return ()


def shorter_array_than_announced():
    pipe = _announce(['<f8', [1]])
    pipe.send_bytes(bytes(4))
    return ()


def half_a_message():
    os.write(_pipe().fileno(), struct.pack('!i', 1000) + b'{')
    time.sleep(600)


def half_an_array():
    pipe = _announce(['<f8', [1000]])
    os.write(pipe.fileno(), struct.pack('!i', 8000) + b'abc')
    time.sleep(600)
