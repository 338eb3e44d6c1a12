"""The command that runs all stages, from videos to the accuracy table.

python -m amuse_jax.main --config=configs/demo.py
python -m amuse_jax.main --config=configs/demo.py --stages=summary
python -m amuse_jax.main --config=configs/demo.py --stages=status
python -m amuse_jax.main --config=configs/demo.py --stages=ablations
python -m amuse_jax.main --config=configs/demo.py --stages=peers
python -m amuse_jax.main --config=configs/demo.py --stages=ask --video=F.mp4 --question="..."

With several hosts, every host runs the same command with a --coordinator, and all of them use one
workdir. The scripts in launch/ do this.
"""

import sys
from logging import WARNING
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from amuse_jax.errors import StageError
from amuse_jax.system import environment, memory, paths, preemption, xla

# Worker processes import this file again, so heavy modules are imported inside the functions.

CONFIG = config_flags.DEFINE_config_file('config', None, 'Config file, such as configs/demo.py.')
WORKDIR = flags.DEFINE_string(
    'workdir', '', "The run's folder; if empty, runs/<config.name> is used."
)
STAGES = flags.DEFINE_list(
    'stages', [], 'Stages to run; if empty, all whose results are missing or out of date.'
)
REDO = flags.DEFINE_list(
    'redo',
    [],
    'Stages to make again although they are complete; earlier results are set aside or replaced as '
    'after a change of settings.',
)
VIDEO = flags.DEFINE_string('video', '', 'For --stages=ask: a video file.')
COORDINATOR = flags.DEFINE_string(
    'coordinator',
    '',
    'With several hosts: HOST:PORT of the first one, or auto if the cluster provides it.',
)
PROCESS_ID = flags.DEFINE_integer(
    'process_id', 0, 'With HOST:PORT: the number of this process, from 0.'
)
PROCESS_COUNT = flags.DEFINE_integer('process_count', 1, 'With HOST:PORT: the number of processes.')
PREEMPTED_STATUS = flags.DEFINE_integer(
    'preempted_status',
    preemption.STATUS,
    'Exit status after SIGTERM; launch scripts restart the run on it.',
)
QUESTION = flags.DEFINE_string('question', '', 'For --stages=ask: a question in plain English.')


def main(argv: list[str]) -> None:
    """Run the stages or the command that the flags name."""
    if len(argv) > 1:
        raise app.UsageError(f'unexpected argument {argv[1]!r}; settings are given as --config.x=y')
    environment.set_up()
    from amuse_jax.run import settings
    from amuse_jax.system import devices, hosts

    memory.keep_freed()
    config = CONFIG.value
    try:
        workdir = paths.from_user(WORKDIR.value or f'runs/{config.name}', '--workdir').absolute()
        settings.expand_paths(config)
        settings.check(config)
        settings.check_workdir(workdir)
        from amuse_jax.run import batches, plan

        xla.set_environment(shares_gpus=plan.shares_gpus(config, workdir, STAGES.value, REDO.value))
        if COORDINATOR.value:
            hosts.initialize(COORDINATOR.value, PROCESS_ID.value, PROCESS_COUNT.value)
        _filter_log()
        preemption.handle_sigterm(PREEMPTED_STATUS.value)
        import jax

        from amuse_jax.models import platform

        xla.run_cpu_programs_in_place()
        jax.config.update(
            'jax_default_matmul_precision', platform.matmul_precision(config.model.dtype)
        )
        if STAGES.value == ['summary']:
            devices.start()
            plan.summarise(config)
            return
        config, sizes = batches.resolve(config, workdir, devices.count)
        if STAGES.value == ['status']:
            plan.show_status(config, workdir)
        elif STAGES.value == ['ask']:
            devices.start()
            plan.ask(config, workdir, VIDEO.value, QUESTION.value)
        else:
            plan.run(config, workdir, STAGES.value, REDO.value, sizes)
    except StageError as error:
        hosts.exit_at_once(f'amuse_jax: {error}')
    except preemption.Preempted:
        print(preemption.MESSAGE, file=sys.stderr)
        sys.exit(PREEMPTED_STATUS.value)
    except Exception as error:
        if hosts.count() == 1:
            raise
        hosts.exit_on_error(error)


def _parse(arguments: list[str]) -> list[str]:
    """Parse the flags, and exit with one sentence if the config or a flag is wrong."""
    try:
        rest = flags.FLAGS(arguments)
        CONFIG.value.name  # noqa: B018  a config that could not be loaded fails only when it is used
        return rest
    except (flags.Error, AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        text = str(error).strip('\'"').replace('\\n', ' ').replace('\\', '')
        sentence = text.strip().splitlines()[-1].strip().removeprefix('ValueError: ')
        sys.exit(f'amuse_jax: a setting on the command line is wrong: {sentence}')


def _filter_log() -> None:
    """Log this project's messages, but only warnings of libraries.

    With several hosts, only the first one logs messages that all hosts would log.
    """
    from amuse_jax.system import hosts

    logging.set_verbosity(logging.INFO if hosts.is_first() else logging.WARNING)
    own = str(Path(__file__).parent)
    logging.get_absl_handler().addFilter(
        lambda record: record.levelno >= WARNING or record.pathname.startswith(own)
    )


if __name__ == '__main__':
    flags.mark_flag_as_required('config')
    app.run(main, flags_parser=_parse)
