"""The work of the stage `features`, done in a process of its own, which may import PyTorch."""

import functools
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from amuse_jax.data.prepared import Prepared
from amuse_jax.errors import PartDone
from amuse_jax.features import catalogue, shards
from amuse_jax.features.catalogue import Extractor
from amuse_jax.media import guarded
from amuse_jax.system import gpus, shard_arrays
from amuse_jax.system.files import write_atomically, write_json
from amuse_jax.system.sharded import THREADS, map_shards

REPORT = 'report.json'
_SHARDS, _REASONS = 'shards', 'reasons'
_ID = {'sound': 'sound_id', 'picture': 'video_id'}  # which video of a record is read


def run(config: ConfigDict, folder: Path, root: Path, prepared_folder: Path) -> None:
    """Write all files of the stage; continue where an earlier call was killed.

    Args:
      config: the whole config.
      folder: the stage's folder.
      root: the data set's folder.
      prepared_folder: the folder of the stage `prepare`.

    Raises:
      PartDone: the shards that `data.part` names are written, and others may be missing.
      StageError: weights cannot be used, or a video is gone.
    """
    os.environ.update(dict.fromkeys(THREADS, '1'))  # of the processes that start: one per CPU
    prepared = Prepared(prepared_folder)
    texts = sorted({row['text'] for row in prepared.rows})
    extractors, part_done = catalogue.chosen(config.features.arrays), None
    try:
        for extractor in extractors:
            if extractor.reads == 'question':
                items = texts
            else:
                items = [video[_ID[extractor.reads]] for video in prepared.videos]
            try:
                _extract(config, folder, root, extractor, items)
            except PartDone as done:
                part_done = done
    finally:
        guarded.close_readers()  # this process has one if it wrote the shards itself
    if part_done is not None:
        raise part_done
    _finish(folder, extractors, prepared.videos, texts)


def _extract(
    config: ConfigDict, folder: Path, root: Path, extractor: Extractor, items: Sequence[str]
) -> None:
    """Write the arrays of one extractor, row i for items[i], unless they are complete."""
    reasons = folder / _REASONS / f'{extractor.name}.json'
    paths = [folder / f'{name}.npy' for name in extractor.shapes]
    if reasons.exists() and all(path.exists() for path in paths):
        return
    job = shards.Job(
        extractor,
        config.features[extractor.weights] if extractor.weights else '',
        root,
        config.data.videos,
        guarded.Limits.from_settings(config.data),
    )
    unique, is_question = sorted(set(items)), extractor.reads == 'question'
    shard_paths = map_shards(
        functools.partial(shards.write_questions if is_question else shards.write_videos, job),
        unique,
        folder / _SHARDS / extractor.name,
        suffix='.npz',
        shard_size=config.data.shard_videos,
        workers=config.data.workers,
        description=f'features: {extractor.name}',
        unit='question' if is_question else 'video',
        beam=config.data.beam,
        part=config.data.part,
        devices=gpus.visible(),
    )
    row_of = {item: row for row, item in enumerate(unique)}
    rows = [row_of[item] for item in items]
    shard_arrays.merge([*extractor.shapes], shard_paths, rows, config.data.shard_videos, folder)
    write_json(reasons, shard_arrays.reasons_of(shard_paths, unique))
    shutil.rmtree(folder / _SHARDS / extractor.name)


def _finish(
    folder: Path, extractors: Sequence[Extractor], videos: Sequence[dict], texts: Sequence[str]
) -> None:
    """Write the report, the array of the seconds, and the texts of the questions."""
    unreadable = {}
    ends = np.array([[video['seconds']] for video in videos])
    exists = catalogue.has_begun(np.arange(catalogue.SECONDS), ends)
    for extractor in extractors:
        found = json.loads((folder / _REASONS / f'{extractor.name}.json').read_text('utf-8'))
        unreadable |= found
        if extractor.reads != 'question':
            exists[[video[_ID[extractor.reads]] in found for video in videos]] = False
    write_atomically(
        folder / f'{catalogue.EXISTING}.npy',
        lambda path: np.save(path, exists, allow_pickle=False),
    )
    has_questions = any(extractor.reads == 'question' for extractor in extractors)
    if has_questions:
        write_json(folder / f'{catalogue.QUESTIONS}.json', list(texts))
    shutil.rmtree(folder / _SHARDS, ignore_errors=True)
    report = {
        'records': len(videos),
        'questions': len(texts) if has_questions else 0,
        'arrays': [name for extractor in extractors for name in extractor.shapes],
        'unreadable': unreadable,
    }
    write_json(folder / REPORT, report)
    shutil.rmtree(folder / _REASONS)
