"""The stored tokens on the disk, in host memory and on devices give the same batches."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from amuse_jax.training import sharding, token_cache
from amuse_jax.training.device_memory import Room
from amuse_jax.training.token_cache import TokenCache

RECORDS, SEGMENTS = 13, 4
HERE = Path(__file__).parent
GB = 10**9


def tokens(dtype=jnp.bfloat16):
    random = np.random.default_rng(0)
    return {
        name: random.normal(size=(RECORDS, SEGMENTS, count, 3)).astype(dtype)
        for name, count in (('visual', 5), ('audio', 2))
    }


def batch(order=None):
    records = np.array([4, 9, 4, 0], np.int32)
    order = np.tile(np.arange(SEGMENTS, dtype=np.int32), (4, 1)) if order is None else order
    return {'record': records, 'segments': order}


@pytest.mark.parametrize('place', token_cache.PLACES)
@pytest.mark.parametrize('is_shifted', [False, True])
def test_every_place_gives_the_rows_of_the_arrays(place, is_shifted):
    mesh, arrays = sharding.single_device_mesh(), tokens()
    cache = TokenCache(arrays, [0, 4, 9, 11], mesh, place)
    cache.place(4, 0)
    assert cache.place_name == place
    order = np.array([[2, 3, 0, 1], [0, 1, 2, 3], [1, 0, 2, 3], [3, 0, 1, 2]], np.int32)
    given = batch(order if is_shifted else None)
    found = cache.gather(sharding.shard_batch(cache.add(given), mesh))
    assert set(found) == {'record', 'visual', 'audio'}
    for name, array in arrays.items():
        assert found[name].dtype == jnp.bfloat16
        rows = array[given['record'][:, None], given['segments']]
        np.testing.assert_array_equal(np.asarray(found[name]), rows)
    shapes = cache.shapes(4)
    assert {n: (x.shape, x.dtype) for n, x in shapes.items()} == {
        n: (found[n].shape, found[n].dtype) for n in arrays
    }


def test_host_memory_holds_only_the_records_that_batches_hold():
    cache = TokenCache(tokens(), [0, 4, 9], sharding.single_device_mesh(), 'host')
    cache.place(4, 0)
    assert cache.nbytes == 3 * SEGMENTS * 7 * 3 * 2
    assert sum(array.nbytes for array in cache._held.values()) == cache.nbytes
    cache.release()
    assert cache.place_name == 'disk' and not cache._held
    assert cache.add(batch())['visual'].shape == (4, SEGMENTS, 5, 3)


class Mesh:
    """Eight devices along data, as far as `choose` asks."""

    size = 8
    shape = {'data': 8, 'fsdp': 1, 'tensor': 1}


@pytest.mark.parametrize(
    ('step', 'room', 'place', 'reason'),
    [
        (10, Room(80 * GB, 500 * GB), 'device', 'each device needs 16.5 GB of 80 GB'),
        (70, Room(80 * GB, 500 * GB), 'host', 'each device needs 76.5 GB, and 80 GB are free'),
        (10, Room(None, 500 * GB), 'host', "the devices' memory is unknown"),
        (70, Room(80 * GB, 30 * GB), 'disk', 'the host has 30 GB for each process'),
        (70, Room(None, 500 * GB), 'disk', 'the host has 500 GB'),  # the host runs the step, too
        (10, Room(None, None), 'disk', "the host's memory is unknown"),
    ],
)
def test_auto_takes_the_first_place_that_has_room(step, room, place, reason):
    row = np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), (10_000, 4_200_000), (0, 0))
    cache = TokenCache({'visual': row}, range(10_000), Mesh(), 'auto')  # 42 GB
    found, why = cache.choose(videos=100, step_bytes=step * GB, room=room)
    assert found == place and reason in why
    named = TokenCache({'visual': row}, range(10_000), Mesh(), 'disk')
    assert named.choose(100, 0, Room(80 * GB, 500 * GB))[0] == 'disk'


def test_devices_do_not_exchange_more_than_they_should():
    row = np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), (10_000, 4_200_000), (0, 0))
    cache = TokenCache({'visual': row}, range(10_000), Mesh(), 'auto')
    found, why = cache.choose(videos=1000, step_bytes=0, room=Room(80 * GB, 500 * GB))
    assert found == 'host' and 'would exchange 4.2 GB in every step' in why


def test_the_log_says_where_the_tokens_are(caplog):
    cache = TokenCache(tokens(), range(RECORDS), sharding.single_device_mesh(), 'auto')
    with caplog.at_level(logging.INFO):
        cache.place(4, 0)
    (line,) = [record.message for record in caplog.records if 'stored tokens' in record.message]
    assert 'in the memory of the host' in line and "the devices' memory is unknown" in line


@pytest.fixture(scope='module')
def on_devices(tmp_path_factory):
    """The results of token_waits.py on eight virtual devices."""
    environment = {
        **os.environ,
        'PYTHONPATH': str(HERE.parents[1]),
        'XLA_FLAGS': f'{os.environ["XLA_FLAGS"]} --xla_force_host_platform_device_count=8',
    }
    command = [sys.executable, HERE / 'token_waits.py', tmp_path_factory.mktemp('waits')]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize('mesh', ['8x1x1', '2x2x2', '1x4x2'])
def test_eight_devices_gather_the_rows_of_the_arrays(on_devices, mesh):
    assert on_devices['equal'][mesh] is True


@pytest.mark.slow
@pytest.mark.parametrize('place', token_cache.PLACES)
def test_a_step_of_eight_devices_hardly_waits_for_its_data(on_devices, place):
    """Less than 2 % of the time on a quiet machine; tests may share theirs with others."""
    assert on_devices['waits'][place] < 0.1


@pytest.mark.slow
def test_devices_hold_equal_shares(on_devices):
    assert on_devices['shares'] == [on_devices['shares'][0]] * 8
