"""Measure the speed of Amuse in JAX and in PyTorch, with the same weights and inputs, in turns.

python -m amuse_jax.benchmark --config=configs/v1.py
python -m amuse_jax.benchmark --config=configs/v1.py --rows=visual,step --rounds=20
python -m amuse_jax.benchmark --config=configs/v1.py --sweep=batch,questions,segments,resolution
python -m amuse_jax.benchmark --config=configs/v1.py --sweep=remat_policy  # cost of recomputation
python -m amuse_jax.benchmark tpu --config=configs/v1.py --topology=v5e:4x4,v5e:16x16

The command prints one line per row and then a table. It saves all figures in OUT/figures.json,
where the rows of earlier runs stay until they are measured again. Both sides run in this process,
with all of its threads and the same allocator. Before they are timed, their results are compared.

visual, audio, text, adapters      forward pass of a tower, or of the adapters of one round
visual-gradient, ...-gradient      forward pass and gradient with respect to all parameters
whole, step, questions             Amuse: forward pass, training step, five questions on one video
epoch                              cost of one question in an epoch, with caching and sharing
compile                            compile time of the training step, without and with the cache
pipeline, prepare                  reading records and preparing videos, each on one core

`tpu` compiles the training step ahead of time for TPUs; none is needed. It reports whether the
step fits into memory, and estimates the time of a step and of a whole training. It needs libtpu
(pip install '.[tpu]') and takes minutes. By default, a step has 256 videos, a chip processes four
of them at a time, and only the inputs of each layer are kept for the gradient. Change this with
--config.train.batch_size, --config.train.parts and --config.loop.remat_policy. OUT/tpu.json holds
the figures of every topology and setting.

amuse_jax/benchmark/reference/__init__.py describes the PyTorch side.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from amuse_jax.system import memory

# Worker processes import this file again, so heavy modules are imported inside the functions.

CONFIG = config_flags.DEFINE_config_file('config', 'configs/v1.py', 'Config with the sizes.')
ROWS = flags.DEFINE_list(
    'rows', [], 'Rows to measure; if empty, all rows, or no row if --sweep is given.'
)
SWEEP = flags.DEFINE_list(
    'sweep',
    [],
    'Settings to vary: batch, questions, segments, resolution, remat_policy.',
)
DTYPES = flags.DEFINE_list('dtypes', ['float32'], 'Compute dtypes: float32, bfloat16.')
ROUNDS = flags.DEFINE_integer('rounds', 7, 'Measured repetitions of each side.', lower_bound=1)
COMPILE = flags.DEFINE_bool('compile', True, 'Measure torch.compile too, except in sweeps.')
FREED_MEMORY = flags.DEFINE_enum(
    'freed_memory', 'kept', ['kept', 'returned', 'both'],
    'What glibc does with freed memory: kept, as amuse_jax.main sets it, or returned, its default.',
)  # fmt: skip
OUT = flags.DEFINE_string('out', 'runs/benchmark', 'Folder of the figures and of the input data.')
TOPOLOGY = flags.DEFINE_list(
    'topology',
    ['v5e:4x4'],
    'For tpu: chip topologies; v5e, v5p or v6e, and a shape, such as v5e:4x4.',
)


def main(argv: list[str]) -> None:
    """Run the benchmark, or the TPU estimate if the argument is `tpu`."""
    if argv[1:] == ['tpu']:
        _tpu(CONFIG.value)
        return
    if argv[1:]:
        raise app.UsageError(f'unexpected arguments: {" ".join(argv[1:])}')
    if FREED_MEMORY.value == 'both':  # a process cannot undo the setting
        command = [sys.executable, '-m', 'amuse_jax.benchmark', *sys.argv[1:]]
        for freed_memory in ('kept', 'returned'):
            done = subprocess.run([*command, f'--freed_memory={freed_memory}'])
            if done.returncode:
                sys.exit(done.returncode)
        return
    logging.set_verbosity(logging.WARNING)  # JAX logs every accelerator that it does not find
    if FREED_MEMORY.value == 'kept':
        memory.keep_freed()
    os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')  # leaves memory for PyTorch
    from amuse_jax.errors import StageError

    try:
        _run(CONFIG.value)
    except StageError as error:
        sys.exit(f'amuse_jax: {error}')


def _tpu(config) -> None:
    os.environ['JAX_PLATFORMS'] = 'cpu'  # the step is compiled for other chips than the local ones
    from amuse_jax.benchmark import tpu
    from amuse_jax.errors import StageError
    from amuse_jax.run import settings

    logging.set_verbosity(logging.WARNING)
    try:
        overrides = config_flags.get_override_values(flags.FLAGS['config'])
        for topology in TOPOLOGY.value:
            shards = tpu.num_batch_shards(config, topology)
            fitted = tpu.fit_to_chips(config, overrides, shards)
            settings.check(fitted)
            step = tpu.compile_step(fitted, topology)
            print(tpu.describe_step(step) + '\n', flush=True)
            tpu.save(Path(OUT.value) / 'tpu.json', tpu.figures(step))
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
        print('torch.compile is not measured: it needs a C++ compiler, and g++ is not installed')
    plan = rows.Plan(
        rows=ROWS.value or (() if SWEEP.value else rows.ROWS),
        sweeps=SWEEP.value,
        dtypes=DTYPES.value,
        rounds=ROUNDS.value,
        with_compile=COMPILE.value and has_compiler,
        freed_memory=FREED_MEMORY.value,
        folder=folder,
    )
    settings.check(config)
    # Without caches, compile times are those of a first run.
    jax.config.update('jax_enable_compilation_cache', False)
    torch.compiler.config.force_disable_caches = True
    if hasattr(os, 'sched_getaffinity'):
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    figures = report.Figures(folder / 'figures.json', config)
    print(report.machine_name(), flush=True)
    rows.measure(config, plan, figures)
    if figures.sweeps:
        sweeps.plot(figures.sweeps, folder / 'sweeps.png')


if __name__ == '__main__':
    app.run(main)
