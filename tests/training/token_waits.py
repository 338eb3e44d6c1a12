"""Measure how long a step on eight devices waits for stored tokens: `python token_waits.py FOLDER`.

A step sleeps for as long as one is estimated to take on H100s. The arrays have rows of realistic
size. The last line of the output is JSON: the share of the time spent waiting by place, whether
gathered rows equal those of the arrays by mesh, and the bytes of each device's share.
"""

import json
import sys
import time
from pathlib import Path

import grain
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from amuse_jax.data import pipeline
from amuse_jax.training import sharding, stored, token_cache
from amuse_jax.training.watchdog import Watchdog

STEP_SECONDS, STEPS, WINDOWS = 0.16, 4, 3
RECORDS, VIDEOS = 24, 8
SEGMENTS, VISUAL, AUDIO = 10, (144, 768), (256, 384)  # of v1


def store(folder: Path) -> None:
    """Store random bfloat16 tokens, as the stage does."""
    random = np.random.default_rng(0)

    def compute(batch):
        rows = len(batch['record'])
        return {
            name: random.normal(size=(rows, SEGMENTS, *shape)).astype(jnp.bfloat16)
            for name, shape in (('visual', VISUAL), ('audio', AUDIO))
        }

    def batches(records):
        return grain.MapDataset.source(records).map(lambda r: {'record': np.int32(r)}).batch(4)

    watchdog = Watchdog(folder, 0, ())
    stored.compute_and_store(
        folder, ('visual', 'audio'), RECORDS, batches, compute, 'store', watchdog
    )


def read_batches(cache: token_cache.TokenCache, count: int) -> grain.MapDataset:
    """Return shuffled batches of records with their tokens."""

    def fetch(record):
        return {'record': np.int32(record), 'segments': np.arange(SEGMENTS, dtype=np.int32)}

    items = grain.MapDataset.range(RECORDS).map(fetch).shuffle(seed=0).repeat(count)
    return pipeline.batched(items, VIDEOS).map(cache.add)


def share_of_waiting(arrays, mesh, place: str) -> tuple[float, list[int]]:
    """Return the share of the time that steps wait for tokens, and the bytes by device.

    The share is that of the window of steps with the least, in which other programs disturb least.
    """
    cache = token_cache.TokenCache(arrays, range(RECORDS), mesh, place)
    cache.place(VIDEOS, 0)
    batches = read_batches(cache, STEPS * (1 + WINDOWS))
    iterator = pipeline.iterate(batches.map(lambda batch: sharding.shard_batch(batch, mesh)))
    windows = []
    for window in range(1 + WINDOWS):
        waited, start = 0.0, time.monotonic()
        for _ in range(STEPS):
            before = time.monotonic()
            batch = next(iterator)
            waited += time.monotonic() - before
            tokens = cache.gather(batch)
            time.sleep(STEP_SECONDS)
            jax.block_until_ready(tokens)
        if window:  # the first one warms up
            windows.append(waited / (time.monotonic() - start))
    shares = (
        [s.data.nbytes for s in cache._held['visual'].addressable_shards]
        if (place == 'device')
        else []
    )
    return min(windows), shares


def gathers_the_same(arrays, sizes: str) -> bool:
    """Return whether a mesh gathers the rows of the arrays, in any order of the segments."""
    mesh = sharding.mesh(ConfigDict(dict(zip(sharding.AXES, map(int, sizes.split('x'))))))
    cache = token_cache.TokenCache(arrays, range(1, RECORDS), mesh, 'device')
    cache.place(VIDEOS, 0)
    random = np.random.default_rng(1)
    records = random.integers(1, RECORDS, VIDEOS).astype(np.int32)
    order = np.stack([random.permutation(SEGMENTS) for _ in records]).astype(np.int32)
    batch = cache.add({'record': records, 'segments': order})
    found = cache.gather(sharding.shard_batch(batch, mesh))
    return all(
        np.array_equal(
            np.asarray(found[name]).view(np.uint16),
            array[records[:, None], order].view(np.uint16),
        )
        for name, array in arrays.items()
    )


def main(folder: Path) -> None:
    """Store the tokens, and print the results."""
    store(folder)
    arrays = stored.read(folder, ('visual', 'audio'))
    mesh = sharding.mesh(ConfigDict(dict(data=8, fsdp=1, tensor=1)))
    found = {place: share_of_waiting(arrays, mesh, place) for place in token_cache.PLACES}
    result = {
        'waits': {place: wait for place, (wait, _) in found.items()},
        'shares': found['device'][1],
        'equal': {name: gathers_the_same(arrays, name) for name in ('8x1x1', '2x2x2', '1x4x2')},
    }
    print(json.dumps(result))


if __name__ == '__main__':
    main(Path(sys.argv[1]))
