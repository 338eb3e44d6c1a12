"""Command that renders a data set of synthetic performances and runs no other stage.

python -m amuse_jax.synthetic --out=DIR --videos=100 --seed=1

Running it again continues an interrupted run. With a larger --videos it adds videos and rewrites
the questions.
"""

import sys

from absl import app, flags

from amuse_jax.config import default_config
from amuse_jax.errors import StageError
from amuse_jax.synthetic import stage
from amuse_jax.system import environment, paths

_DEFAULTS = default_config().synthetic

_OUT = flags.DEFINE_string('out', None, 'Output folder.', required=True)
_WORKERS = flags.DEFINE_integer(
    'workers', 0, 'Number of processes; 0 means one per core.', lower_bound=0
)
_SETTINGS = {
    'videos': flags.DEFINE_integer('videos', 100, 'Number of performances, 60 seconds each.'),
    'seed': flags.DEFINE_integer('seed', _DEFAULTS.seed, 'The same seed gives the same data set.'),
    'width': flags.DEFINE_integer('width', _DEFAULTS.width, 'Picture width in pixels.'),
    'height': flags.DEFINE_integer('height', _DEFAULTS.height, 'Picture height in pixels.'),
    'fps': flags.DEFINE_integer('fps', _DEFAULTS.fps, 'Frames per second.'),
    'questions_per_video': flags.DEFINE_integer(
        'questions_per_video',
        _DEFAULTS.questions_per_video,
        'Average number of questions per video.',
    ),
    'val_share': flags.DEFINE_float('val_share', _DEFAULTS.val_share, 'Share of videos in val.'),
    'test_share': flags.DEFINE_float(
        'test_share', _DEFAULTS.test_share, 'Share of videos in test.'
    ),
}


def main(argv: list[str]) -> None:
    """Render the data set that the flags describe and print a summary."""
    environment.set_up()
    if len(argv) > 1:
        raise app.UsageError(f'unknown arguments {argv[1:]}')
    settings = _DEFAULTS
    settings.update({name: flag.value for name, flag in _SETTINGS.items()})
    try:
        folder = paths.from_user(_OUT.value, '--out')
        summary = stage.render(settings, folder, _WORKERS.value)
    except StageError as error:
        sys.exit(f'amuse_jax.synthetic: {error}')
    questions = ', '.join(f'{count} {split}' for split, count in summary['questions'].items())
    print(f'{summary["videos"]} videos in {_OUT.value}, {summary["rendered"]} of them rendered now')
    print(f'questions: {questions}')
    if summary['rendered']:
        print(f'speed: {summary["times_real_time_per_core"]} times real time per core')


if __name__ == '__main__':
    app.run(main)
