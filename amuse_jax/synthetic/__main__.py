"""Makes a data set of synthetic performances, and nothing else.

python -m amuse_jax.synthetic --out=DIR --videos=100 --seed=1

Started again after a kill, it goes on; with more videos, it adds them and writes the questions
anew.
"""

import sys
from pathlib import Path

from absl import app, flags

from amuse_jax.config import default_config
from amuse_jax.errors import StageError
from amuse_jax.synthetic import stage as render

_DEFAULTS = default_config().synthetic

_OUT = flags.DEFINE_string('out', None, 'Folder to write to.', required=True)
_WORKERS = flags.DEFINE_integer('workers', 0, 'Processes; 0: one per core.', lower_bound=0)
_SETTINGS = {
    'videos': flags.DEFINE_integer('videos', 100, 'How many performances, of 60 s each.'),
    'seed': flags.DEFINE_integer('seed', _DEFAULTS.seed, 'Same seed, same data set.'),
    'width': flags.DEFINE_integer('width', _DEFAULTS.width, 'Of the picture, in pixels.'),
    'height': flags.DEFINE_integer('height', _DEFAULTS.height, 'Of the picture, in pixels.'),
    'fps': flags.DEFINE_integer('fps', _DEFAULTS.fps, 'Pictures per second.'),
    'questions_per_video': flags.DEFINE_integer(
        'questions_per_video', _DEFAULTS.questions_per_video, 'On average.'
    ),
    'val_share': flags.DEFINE_float('val_share', _DEFAULTS.val_share, 'Of the videos.'),
    'test_share': flags.DEFINE_float('test_share', _DEFAULTS.test_share, 'Of the videos.'),
}


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f'unknown arguments {argv[1:]}')
    settings = _DEFAULTS
    settings.update({name: flag.value for name, flag in _SETTINGS.items()})
    try:
        summary = render.render(settings, Path(_OUT.value), _WORKERS.value)
    except StageError as error:
        sys.exit(f'amuse_jax.synthetic: {error}')
    questions = ', '.join(f'{count} {split}' for split, count in summary['questions'].items())
    print(f'{summary["videos"]} videos in {_OUT.value}, of which {summary["rendered"]} are new')
    print(f'questions: {questions}')
    if summary['rendered']:
        print(f'rendered {summary["times_real_time_per_core"]} times real time per core')


if __name__ == '__main__':
    app.run(main)
