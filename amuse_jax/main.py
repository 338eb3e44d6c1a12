"""The whole job: from videos to the accuracy table.

python -m amuse_jax.main --config=configs/demo.py
python -m amuse_jax.main --config=configs/demo.py --stages=summary
python -m amuse_jax.main --config=configs/demo.py --stages=ablations
python -m amuse_jax.main --config=configs/demo.py --stages=ask --video=F.mp4 --question="..."

Of several hosts, each runs the same command with a --coordinator; all see one workdir. launch/ has
scripts that do so.
"""

import sys
from logging import WARNING
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from amuse_jax.system import memory

# Worker processes import this file again: what is heavy is imported inside the functions.

CONFIG = config_flags.DEFINE_config_file('config', None, 'Configuration, such as configs/demo.py.')
WORKDIR = flags.DEFINE_string('workdir', '', 'Folder of the run; runs/<config.name> when empty.')
STAGES = flags.DEFINE_list(
    'stages', [], 'Stages to run; when empty, all whose artefacts are missing or out of date.'
)
VIDEO = flags.DEFINE_string('video', '', 'For --stages=ask: a video file.')
COORDINATOR = flags.DEFINE_string(
    'coordinator', '', 'Of several hosts: HOST:PORT of the first, or auto where the cluster tells.'
)
PROCESS_ID = flags.DEFINE_integer('process_id', 0, 'With HOST:PORT: which of them this is, from 0.')
PROCESS_COUNT = flags.DEFINE_integer('process_count', 1, 'With HOST:PORT: how many there are.')
PREEMPTED_STATUS = flags.DEFINE_integer(
    'preempted_status', 0, 'To exit with after SIGTERM; launches tell by it to start again.'
)
QUESTION = flags.DEFINE_string('question', '', 'For --stages=ask: a question in plain English.')


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f'unexpected argument {argv[1]!r}; settings are given as --config.x=y')
    from amuse_jax.errors import StageError
    from amuse_jax.run import settings
    from amuse_jax.system import hosts, preemption

    memory.keep_freed()
    config = CONFIG.value
    workdir = Path(WORKDIR.value or f'runs/{config.name}').absolute()
    try:
        settings.check(config)
        if COORDINATOR.value:
            hosts.start(COORDINATOR.value, PROCESS_ID.value, PROCESS_COUNT.value)
        _show_own_messages()
        preemption.watch(PREEMPTED_STATUS.value)
        from amuse_jax.run import plan

        if STAGES.value == ['summary']:
            plan.summarise(config)
        elif STAGES.value == ['ask']:
            plan.ask(config, workdir, VIDEO.value, QUESTION.value)
        else:
            plan.run(config, workdir, STAGES.value)
    except StageError as error:
        hosts.leave(f'amuse_jax: {error}')
    except preemption.Preempted:
        print(preemption.MESSAGE, file=sys.stderr)
        sys.exit(PREEMPTED_STATUS.value)
    except Exception as error:
        if hosts.count() == 1:
            raise
        hosts.leave_over(error)


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
    """What this project logs, and warnings of the libraries; above the progress bars. Of several
    hosts, the first one says what all would."""
    from amuse_jax.system import hosts

    logging.set_verbosity(logging.INFO if hosts.is_first() else logging.WARNING)
    own = str(Path(__file__).parent)
    logging.get_absl_handler().addFilter(
        lambda record: record.levelno >= WARNING or record.pathname.startswith(own)
    )


if __name__ == '__main__':
    flags.mark_flag_as_required('config')
    app.run(main, flags_parser=_parse)
