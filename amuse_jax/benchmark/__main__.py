"""How fast Amuse is beside PyTorch: the same weights and inputs, in turns, in one run.

python -m amuse_jax.benchmark --config=configs/v1.py
python -m amuse_jax.benchmark --config=configs/v1.py --rows=visual,step --rounds=20
python -m amuse_jax.benchmark --config=configs/v1.py --sweep=batch,questions,segments,resolution
python -m amuse_jax.benchmark --config=configs/v1.py --sweep=kept     # what rematerialisation costs
python -m amuse_jax.benchmark tpu --config=configs/v1.py --topology=v5e:4x4,v5e:16x16

Prints a line per row and a table, and keeps all figures in OUT/figures.json, where rows of earlier
runs stay until they are measured again. Both sides run in this process, with all its threads and
its allocator, after their results were found equal.

visual, audio, text, adapters      a tower's forward pass, or one round's adapters
visual-gradient, ...-gradient      forward and the gradient of all parameters
whole, step, questions             Amuse: forward, training step, five questions about a video
epoch                              a question's cost in an epoch, with all that is cached and shared
compile                            of the training step, at first and from the persistent cache
pipeline, prepare                  reading records, preparing videos, on one core

`tpu` compiles the training step ahead of time for TPUs that are not there, and says what fits,
estimates how long it takes, and what a whole training would take. It needs libtpu (pip install
'.[tpu]') and minutes. Unless --config.train.batch_size, --config.train.parts or --config.loop.kept
say otherwise, a step has 256 videos, four at a time on a chip, and keeps layers' inputs alone.
OUT/tpu.json keeps the figures of every topology and settings.

The PyTorch side is described in amuse_jax/benchmark/reference/__init__.py.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from amuse_jax.system import memory

# Processes of their own import this file again: what is heavy is imported inside the functions.

CONFIG = config_flags.DEFINE_config_file('config', 'configs/v1.py', 'The sizes.')
ROWS = flags.DEFINE_list('rows', [], 'Which rows; when empty, all, or none with --sweep.')
SWEEP = flags.DEFINE_list(
    'sweep', [], 'Of batch, questions, segments, resolution, kept: cost against.'
)
DTYPES = flags.DEFINE_list('dtypes', ['float32'], 'Of the compute: float32, bfloat16.')
ROUNDS = flags.DEFINE_integer('rounds', 7, 'Measured repetitions of each side.', lower_bound=1)
COMPILE = flags.DEFINE_bool('compile', True, 'Also measure torch.compile, but for sweeps.')
FREED = flags.DEFINE_enum(
    'freed_memory', 'kept', ['kept', 'returned', 'both'],
    "What glibc does with it: kept as amuse_jax.main does, returned as is glibc's default.",
)  # fmt: skip
OUT = flags.DEFINE_string('out', 'runs/benchmark', 'Folder of figures.json and of what is read.')
TOPOLOGY = flags.DEFINE_list(
    'topology', ['v5e:4x4'], 'Of tpu: v5e, v5p or v6e and a shape of chips, such as v5e:4x4.'
)


def main(argv: list[str]) -> None:
    if argv[1:] == ['tpu']:
        _tpu(CONFIG.value)
        return
    if argv[1:]:
        raise app.UsageError(f'unexpected arguments: {" ".join(argv[1:])}')
    if FREED.value == 'both':  # it cannot be changed back in a process
        command = [sys.executable, '-m', 'amuse_jax.benchmark', *sys.argv[1:]]
        for freed in ('kept', 'returned'):
            done = subprocess.run([*command, f'--freed_memory={freed}'])
            if done.returncode:
                sys.exit(done.returncode)
        return
    logging.set_verbosity(logging.WARNING)  # JAX tells which accelerators there are not
    if FREED.value == 'kept':
        memory.keep_freed()
    os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')  # PyTorch needs a GPU's too
    from amuse_jax.errors import StageError

    try:
        _run(CONFIG.value)
    except StageError as error:
        sys.exit(f'amuse_jax: {error}')


def _tpu(config) -> None:
    os.environ['JAX_PLATFORMS'] = 'cpu'  # a TPU that is there is not what is asked about
    from amuse_jax.benchmark import tpu
    from amuse_jax.errors import StageError
    from amuse_jax.run import settings

    logging.set_verbosity(logging.WARNING)
    try:
        given = config_flags.get_override_values(flags.FLAGS['config'])
        for topology in TOPOLOGY.value:
            fitted = tpu.fitted(config, given, tpu.shares(config, topology))
            settings.check(fitted)
            made = tpu.compile_step(fitted, topology)
            print(tpu.told(made) + '\n', flush=True)
            tpu.keep(Path(OUT.value) / 'tpu.json', tpu.figures(made))
    except StageError as error:
        sys.exit(f'amuse_jax: {error}')


def _run(config) -> None:
    import jax
    import torch.compiler.config

    from amuse_jax.benchmark import report, rows, sweeps
    from amuse_jax.run import settings

    folder = Path(OUT.value).absolute()
    has_compiler = shutil.which(os.environ.get('CXX', 'g++')) is not None
    if COMPILE.value and not has_compiler:
        print('torch.compile is left out: it needs a C++ compiler, and there is no g++')
    plan = rows.Plan(
        rows=ROWS.value or (() if SWEEP.value else rows.ROWS),
        sweeps=SWEEP.value,
        dtypes=DTYPES.value,
        rounds=ROUNDS.value,
        with_compile=COMPILE.value and has_compiler,
        freed_memory=FREED.value,
        folder=folder,
    )
    settings.check(config)
    # Compile times are those of a first run.
    jax.config.update('jax_enable_compilation_cache', False)
    torch.compiler.config.force_disable_caches = True
    if hasattr(os, 'sched_getaffinity'):
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    figures = report.Figures(folder / 'figures.json', config)
    print(report.machine(), flush=True)
    rows.measure(config, plan, figures)
    if figures.sweeps:
        sweeps.draw(figures.sweeps, folder / 'sweeps.png')


if __name__ == '__main__':
    app.run(main)
