"""Renders a data set of performances in the layout of MUSIC-AVQA, and the truth about them.

ROOT/videos/ID.mp4                   what is seen and heard
ROOT/avqa-{train,val,test}.json      the questions; no video is in two splits
ROOT/truth/ID.flac                   every performer's own sound, and the voice-over's
ROOT/truth/ID.json                   who, where, when, how loud, at which tempo, in which boxes
"""

import functools
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from amuse_jax.errors import StageError
from amuse_jax.music_avqa.vocabulary import TEMPLATES, TYPES
from amuse_jax.synthetic.questions import balance, templates
from amuse_jax.synthetic.questions.templates import Candidate
from amuse_jax.synthetic.score.compose import compose, video_id
from amuse_jax.synthetic.score.score import SECONDS, Score
from amuse_jax.system.files import write_atomically, write_json
from amuse_jax.system.sharded import map_files

SPLITS = ('train', 'val', 'test')
PICTURE = ('seed', 'width', 'height', 'fps')  # the settings that videos in one folder must share


def run(config: ConfigDict, folder: Path, inputs: Mapping[str, Path]) -> dict:
    """The stage `render`: config.synthetic says what, config.data.workers by how many processes."""
    return render(config.synthetic, folder, config.data.workers)


def render(settings: ConfigDict, folder: Path, workers: int) -> dict:
    """Renders what `folder` does not hold yet, then writes the annotation files.

    Args:
      settings: the section `synthetic` of amuse_jax/config.py.
      folder: ROOT; a video is finished when its truth file is there, which is written last.
      workers: processes; 0 = one per core; with 1 the work runs in this process.

    Returns:
      {'videos', 'rendered', 'questions': per split, 'times_real_time_per_core': of this call's
      videos}.

    Raises:
      StageError: settings out of range, or the folder holds videos of other settings.
      RuntimeError: a video could not be rendered (named).
    """
    _check(settings)
    _claim(settings, folder)
    for leftover in [*folder.glob('videos/.tmp-*'), *folder.glob('truth/.tmp-*')]:
        leftover.unlink(missing_ok=True)
    todo = sum(
        not _paths(folder, settings.seed, index)[2].exists() for index in range(settings.videos)
    )
    workers = min(workers or os.cpu_count(), max(todo, 1))
    began = time.monotonic()
    _render_all(settings, folder, workers)
    seconds = time.monotonic() - began
    questions = annotations(settings)
    for split, rows in questions.items():
        text = json.dumps(rows, indent=2)
        write_atomically(
            folder / f'avqa-{split}.json', lambda beside, text=text: beside.write_text(text)
        )
    return {
        'videos': settings.videos,
        'rendered': todo,
        'questions': {split: len(rows) for split, rows in questions.items()},
        'times_real_time_per_core': round(todo * SECONDS / (seconds * workers), 1),
    }


def split_ranges(settings: ConfigDict) -> dict[str, range]:
    """Which videos, by number, are in train, val and test: none is empty where there are three."""
    videos = settings.videos
    test = min(max(round(videos * settings.test_share), settings.test_share > 0), videos - 1)
    val = max(round(videos * settings.val_share), settings.val_share > 0)
    val = max(min(val, videos - test - 1), 0)
    train = videos - val - test
    return dict(zip(SPLITS, (range(train), range(train, train + val), range(train + val, videos))))


def annotations(settings: ConfigDict) -> dict[str, list[dict]]:
    """The rows of each split's annotation file, from the scores alone: nothing is rendered."""
    rows = {}
    number = 1
    for index, (split, videos) in enumerate(split_ranges(settings).items()):
        rng = np.random.default_rng((settings.seed, index, 3))
        candidates = (templates.candidates(compose(settings.seed, video)) for video in videos)
        chosen = balance.choose(candidates, settings.questions_per_video, rng)
        rows[split] = []
        for video, questions in zip(videos, chosen):
            for question in questions:
                rows[split].append(_row(question, video_id(settings.seed, video), number))
                number += 1
    return rows


def truth(score: Score, boxes: dict) -> dict:
    """What truth/ID.json holds.

    Args:
      score: the performance.
      boxes: what film.write returned: {'seconds': [...], 'boxes': [[[x0, y0, x1, y1, class,
        performer]]]}.
    """
    channels = iter(range(len(score.performers)))
    return {
        'video_id': score.video_id,
        'seed': score.seed,
        'seconds': score.seconds,
        'setting': score.setting,
        'voiceover': score.voiceover is not None,
        'voiceover_interval': score.voiceover,
        'tempo': score.tempo,
        'performers': [
            {
                'instrument': performer.instrument,
                'heard_instrument': performer.heard,
                'visible': performer.visible,
                'position': performer.x,
                'place': performer.place,
                'intervals': performer.intervals,
                'gain_db': performer.gain_db,
                'notes_per_second': round(performer.notes_per_second, 4),
                'channel': next(channels) if performer.sounds else None,
            }
            for performer in score.performers
        ],
        'boxes': boxes,
    }


def _row(question: Candidate, video: str, number: int) -> dict:
    """A row in the schema of MUSIC-AVQA's first version, its spelling of `anser` included."""
    return {
        'video_id': video,
        'question_id': number,
        'type': json.dumps(TYPES[TEMPLATES[question.template]]),
        'question_content': question.template,
        'templ_values': json.dumps(question.values),
        'question_deleted': 0,
        'anser': question.answer,
    }


def _paths(folder: Path, seed: int, index: int) -> tuple[Path, Path, Path]:
    """Where the video, its stems and its truth go."""
    name = video_id(seed, index)
    truths = folder / 'truth'
    return folder / 'videos' / f'{name}.mp4', truths / f'{name}.flac', truths / f'{name}.json'


def _render_all(settings: ConfigDict, folder: Path, workers: int) -> None:
    """Renders what has no truth file yet: that is written last."""
    work = functools.partial(
        _render_one, folder, settings.seed, settings.width, settings.height, settings.fps
    )
    map_files(
        work,
        [[index] for index in range(settings.videos)],
        [_paths(folder, settings.seed, index)[2] for index in range(settings.videos)],
        workers=workers,
        description='render',
    )


def _render_one(
    folder: Path, seed: int, width: int, height: int, fps: int, indices: list[int], path: Path
) -> None:
    from amuse_jax.synthetic import film  # needs PyAV, which questions alone do not

    score = compose(seed, indices[0])
    video_path, stems_path, _ = _paths(folder, seed, indices[0])
    try:
        boxes = film.write(score, video_path, stems_path, width=width, height=height, fps=fps)
        path.write_text(json.dumps(truth(score, boxes)) + '\n')
    except Exception as error:
        raise RuntimeError(f'{score.video_id} could not be rendered: {error}') from error


def _check(settings: ConfigDict) -> None:
    for name in ('videos', 'questions_per_video', 'width', 'height', 'fps'):
        if settings[name] < 1:
            raise StageError(
                f'synthetic.{name} is {settings[name]}; expected 1 or more to render performances'
            )
    if settings.seed < 0:
        raise StageError(f'synthetic.seed is {settings.seed}; expected 0 or more')
    for name in ('width', 'height'):
        if settings[name] % 2:
            raise StageError(
                f'synthetic.{name} is {settings[name]}; H.264 needs an even number of pixels'
            )
    shares = (settings.val_share, settings.test_share)
    if min(shares) < 0 or sum(shares) >= 1:
        raise StageError(
            f'synthetic.val_share and test_share are {shares[0]} and {shares[1]}; '
            'expected at least 0 each and less than 1 together, so that videos are left to train on'
        )


def _claim(settings: ConfigDict, folder: Path) -> None:
    """Writes down what the folder's videos are made with; refuses a folder of others."""
    path = folder / 'rendering.json'
    ours = {name: settings[name] for name in PICTURE}
    if path.exists():
        theirs = json.loads(path.read_text())
        if theirs != ours:
            raise StageError(
                f'{folder} holds videos made with {theirs}, these are to be made with {ours}; '
                'choose another folder or delete that one'
            )
    write_json(path, ours)
