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
    _pipe().send_bytes(json.dumps({'arrays': [['|O', [1]]]}).encode())
    return ()


def unparsable_dtype():
    _pipe().send_bytes(json.dumps({'arrays': [['(1 2)f8, f8', [1]]]}).encode())
    return ()


def huge_array():
    _pipe().send_bytes(json.dumps({'arrays': [['<f8', [10**12]]]}).encode())
    return ()


def infinite_size():
    _pipe().send_bytes(json.dumps({'arrays': [['<f8', [float('inf')]]]}).encode())
    return ()


def two_unknown_sizes():
    pipe = _pipe()
    pipe.send_bytes(json.dumps({'arrays': [['<f8', [-1, -1]]]}).encode())
    pipe.send_bytes(bytes(8))
    return ()


def impossible_shape():
    pipe = _pipe()
    pipe.send_bytes(json.dumps({'arrays': [['<f8', [0, 10**30]]]}).encode())
    pipe.send_bytes(b'')
    return ()


def negative_size():
    _pipe().send_bytes(json.dumps({'arrays': [['<f8', [-1]], ['<f8', [9]]]}).encode())
    return ()


def longer_array_than_announced():
    pipe = _pipe()
    pipe.send_bytes(json.dumps({'arrays': [['<f8', [1]]]}).encode())
    pipe.send_bytes(bytes(10_000_000))
    return ()


def shorter_array_than_announced():
    pipe = _pipe()
    pipe.send_bytes(json.dumps({'arrays': [['<f8', [1]]]}).encode())
    pipe.send_bytes(bytes(4))
    return ()


def half_a_message():
    os.write(_pipe().fileno(), struct.pack('!i', 1000) + b'{')
    time.sleep(600)


def half_an_array():
    pipe = _pipe()
    pipe.send_bytes(json.dumps({'arrays': [['<f8', [1000]]]}).encode())
    os.write(pipe.fileno(), struct.pack('!i', 8000) + b'abc')
    time.sleep(600)
