"""The stage `render`: a data set of performances in the layout of MUSIC-AVQA, with ground truth.

ROOT/videos/ID.mp4                   the videos
ROOT/avqa-{train,val,test}.json      the questions; no video is in two splits
ROOT/truth/ID.flac                   the stem of every performer and of the voice-over
ROOT/truth/ID.json                   performers, positions, intervals, levels, tempo and boxes
"""

import functools
import json
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
from amuse_jax.system import cpus
from amuse_jax.system.files import write_atomically, write_json
from amuse_jax.system.sharded import map_files

SPLITS = ('train', 'val', 'test')
VIDEO_SETTINGS = ('seed', 'width', 'height', 'fps')  # all videos in a folder must share these


def run(config: ConfigDict, folder: Path, inputs: Mapping[str, Path]) -> dict:
    """Run the stage `render` with config.synthetic, in config.data.workers processes."""
    return render(config.synthetic, folder, config.data.workers)


def render(settings: ConfigDict, folder: Path, workers: int) -> dict:
    """Render the videos that are missing in `folder`, then write the annotation files.

    Args:
      settings: the section `synthetic` of amuse_jax/config.py.
      folder: ROOT. A video is complete when its truth file exists, because that is written last.
      workers: number of processes; 0 means one per core, and 1 runs the work in this process.

    Returns:
      {'videos': number of videos, 'rendered': how many of them this call rendered, 'questions':
      number of questions per split, 'times_real_time_per_core': rendering speed of this call}.

    Raises:
      StageError: a setting is out of range, or the folder holds videos with other settings.
      RuntimeError: a video could not be rendered (the message names it).
    """
    _check(settings)
    _check_folder(settings, folder)
    for leftover in [*folder.glob('videos/.tmp-*'), *folder.glob('truth/.tmp-*')]:
        leftover.unlink(missing_ok=True)
    missing = sum(
        not _paths(folder, settings.seed, index)[2].exists() for index in range(settings.videos)
    )
    workers = min(workers or cpus.usable(), max(missing, 1))
    began = time.monotonic()
    _render_all(settings, folder, workers)
    seconds = time.monotonic() - began
    questions = annotations(settings)
    for split, rows in questions.items():
        text = json.dumps(rows, indent=2)
        write_atomically(
            folder / f'avqa-{split}.json',
            lambda beside, text=text: beside.write_text(text, 'utf-8'),
        )
    return {
        'videos': settings.videos,
        'rendered': missing,
        'questions': {split: len(rows) for split, rows in questions.items()},
        'times_real_time_per_core': round(missing * SECONDS / (seconds * workers), 1),
    }


def split_ranges(settings: ConfigDict) -> dict[str, range]:
    """Return the video numbers of each split.

    With the default shares and three or more videos, no split is empty.
    """
    videos = settings.videos
    test = min(max(round(videos * settings.test_share), settings.test_share > 0), videos - 1)
    val = max(round(videos * settings.val_share), settings.val_share > 0)
    val = max(min(val, videos - test - 1), 0)
    train = videos - val - test
    return dict(zip(SPLITS, (range(train), range(train, train + val), range(train + val, videos))))


def annotations(settings: ConfigDict) -> dict[str, list[dict]]:
    """Return the annotation rows of each split. They need only the scores; nothing is rendered."""
    rows = {}
    number = 1
    for index, (split, videos) in enumerate(split_ranges(settings).items()):
        rng = np.random.default_rng((settings.seed, index, 3))
        candidates = (templates.candidates(compose(settings.seed, video)) for video in videos)
        selected = balance.select(candidates, settings.questions_per_video, rng)
        rows[split] = []
        for video, questions in zip(videos, selected):
            for question in questions:
                rows[split].append(_row(question, video_id(settings.seed, video), number))
                number += 1
    return rows


def truth(score: Score, boxes: dict) -> dict:
    """Return the content of truth/ID.json.

    Args:
      score: the performance.
      boxes: the return value of film.write: {'seconds': [...], 'boxes': [[[x0, y0, x1, y1, class,
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
                'heard_instrument': performer.heard_instrument,
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
    """Return a row in the schema of MUSIC-AVQA v1, including its spelling `anser`."""
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
    """Return the paths of the video, its stems and its truth file."""
    name = video_id(seed, index)
    truths = folder / 'truth'
    return folder / 'videos' / f'{name}.mp4', truths / f'{name}.flac', truths / f'{name}.json'


def _render_all(settings: ConfigDict, folder: Path, workers: int) -> None:
    """Render every video without a truth file; the truth file is written last."""
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
    from amuse_jax.synthetic import film  # imports PyAV, which the questions do not need

    score = compose(seed, indices[0])
    video_path, stems_path, _ = _paths(folder, seed, indices[0])
    try:
        boxes = film.write(score, video_path, stems_path, width=width, height=height, fps=fps)
        path.write_text(json.dumps(truth(score, boxes)) + '\n', 'utf-8')
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
            'expected at least 0 for each and a sum less than 1, to leave videos for train'
        )


def _check_folder(settings: ConfigDict, folder: Path) -> None:
    """Record the video settings in the folder; raise if its videos have other settings."""
    path = folder / 'rendering.json'
    expected = {name: settings[name] for name in VIDEO_SETTINGS}
    if path.exists():
        found = json.loads(path.read_text('utf-8'))
        if found != expected:
            raise StageError(
                f'{folder} holds videos rendered with {found}, but this run uses {expected}; '
                'choose another folder, or move that one away'
            )
    write_json(path, expected)
