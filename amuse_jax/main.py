"""The whole job: from videos to the accuracy table.

python -m amuse_jax.main --config=configs/demo.py
python -m amuse_jax.main --config=configs/demo.py --stages=summary
python -m amuse_jax.main --config=configs/demo.py --stages=ablations
python -m amuse_jax.main --config=configs/demo.py --stages=ask --video=F.mp4 --question="..."
"""

import sys
from logging import WARNING
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from amuse_jax import memory

# Worker processes import this file again: what is heavy is imported inside the functions.

CONFIG = config_flags.DEFINE_config_file('config', None, 'Configuration, such as configs/demo.py.')
WORKDIR = flags.DEFINE_string('workdir', '', 'Folder of the run; runs/<config.name> when empty.')
STAGES = flags.DEFINE_list(
    'stages', [], 'Stages to run; when empty, all whose artefacts are missing or out of date.'
)
VIDEO = flags.DEFINE_string('video', '', 'For --stages=ask: a video file.')
QUESTION = flags.DEFINE_string('question', '', 'For --stages=ask: a question in plain English.')


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f'unexpected argument {argv[1]!r}; settings are given as --config.x=y')
    from amuse_jax import settings
    from amuse_jax.stages import StageError

    memory.keep_freed()
    _show_own_messages()
    config = CONFIG.value
    workdir = Path(WORKDIR.value or f'runs/{config.name}').absolute()
    try:
        settings.check(config)
        from amuse_jax import plan

        if STAGES.value == ['summary']:
            plan.summarise(config)
        elif STAGES.value == ['ask']:
            plan.ask(config, workdir, VIDEO.value, QUESTION.value)
        else:
            plan.run(config, workdir, STAGES.value)
    except StageError as error:
        sys.exit(f'amuse_jax: {error}')


def _parse(arguments: list[str]) -> list[str]:
    """The flags; whatever a config file, ml_collections or absl refuses is one sentence."""
    try:
        rest = flags.FLAGS(arguments)
        CONFIG.value.name  # noqa: B018  a file that could not be loaded says so only when used
        return rest
    except (flags.Error, AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        text = str(error).strip('\'"').replace('\\n', ' ').replace('\\', '')
        sentence = text.strip().splitlines()[-1].strip().removeprefix('ValueError: ')
        sys.exit(f'amuse_jax: a setting on the command line is wrong: {sentence}')


def _show_own_messages() -> None:
    """What this project logs, and warnings of the libraries; above the progress bars."""
    logging.set_verbosity(logging.INFO)
    own = str(Path(__file__).parent)
    logging.get_absl_handler().addFilter(
        lambda record: record.levelno >= WARNING or record.pathname.startswith(own)
    )


if __name__ == '__main__':
    flags.mark_flag_as_required('config')
    app.run(main, flags_parser=_parse)
