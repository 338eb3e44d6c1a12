"""Measure the speed of Amuse in JAX and in PyTorch, with the same weights and inputs, in turns.

python -m amuse_jax.benchmark --config=configs/v1.py
python -m amuse_jax.benchmark --config=configs/v1.py --videos=8 --dtypes=bfloat16  # for a GPU
python -m amuse_jax.benchmark --config=configs/v1.py --rows=visual,step --rounds=20
python -m amuse_jax.benchmark --config=configs/peers/avst.py       # a system of the comparison
python -m amuse_jax.benchmark --config=configs/v1.py --sweep=batch,questions,segments,resolution
python -m amuse_jax.benchmark --config=configs/v1.py --sweep=remat_policy  # cost of recomputation
python -m amuse_jax.benchmark tpu --config=configs/v1.py --topology=v5e:4x4,v5e:16x16
python -m amuse_jax.benchmark gpu --config=configs/v1.py --topology=h100:1x1x1,h100:1x2x8

The command prints one line per row and then two tables. It saves all figures in OUT/figures.json,
where the rows of earlier runs stay until they are measured again. All sides run in this process,
with all of its threads and the same allocator. Before they are timed, their results are compared.

The first table is for the same work: all sides compute the same operations and store nothing. Its
sides are JAX; PyTorch, with Hugging Face's unchanged towers; PyTorch SDPA, the same with
scaled_dot_product_attention in Swin-V2 and HTS-AT; and torch.compile of the latter, with CUDA
graphs on a GPU. The second table is for the same result: each side computes it in its best way.
Both store what the frozen encoders compute and share it among the questions about a video, which
are one batch. PyTorch also stores the position biases of frozen towers.

visual, audio, text, adapters      forward pass of a tower, or of the adapters of one round
visual-gradient, ...-gradient      forward pass and gradient with respect to all parameters
whole, step                        Amuse: forward pass, training step, with one question per video
visual-frozen, audio-frozen        same result: forward pass of a frozen tower
questions                          same result: five questions per video
epoch                              same result: cost of one question in an epoch of training
ask                                same result: watching a video, the first and a further question
peer, peer-step                    of a config with a peer: forward pass, training step
compile                            compile time of the training step, without and with the cache
pipeline, prepare                  reading records and preparing videos, each on one core

Rows that compare sides take --videos videos at once (1). On a GPU one video measures launches
rather than arithmetic; take 8.

`tpu` compiles the training step ahead of time for TPUs; none is needed. It reports whether the
step fits into memory, and estimates the time of a step and of a whole training. It needs libtpu
(pip install '.[tpu]') and takes minutes. By default, a step has 256 videos, a chip processes four
of them at a time, and only the inputs of each layer are kept for the gradient. Change this with
--config.train.batch_size, --config.train.parts and --config.loop.remat_policy. OUT/tpu.json holds
the figures of every topology and setting.

`gpu` does the same for NVIDIA GPUs (a100-80, h100, h200, b200), and none is needed either. A shape
is slices x hosts x cards of a host. Every card gets the config's batch, unless the command line
gives a global one with --config.train.batch_size. The command prints memory, matrix products, bytes
to and from memory by kind, kernels, collectives, an estimate of the time of a step, and the lines
of the source code that take the most of it. It needs JAX's compiler for GPUs in a folder of its own
(--plugin) and says how to install it. OUT/gpu.json holds the figures.

--dump=FILE writes the text of the compiled module, for `tpu` and `gpu`.

`attention` times the backends of attention on this machine, in the shapes of the config, forwards
and with gradients. OUT/attention.json holds the figures.

`on-device` runs the step of `gpu` and `tpu`, with the config's batch, on the first device of this
machine. OUT/step.json holds the measured seconds and, on a known card, the estimate; OUT/step.txt
the module; OUT/trace the trace of three steps, for TensorBoard and Perfetto.

amuse_jax/benchmark/reference/__init__.py describes the PyTorch side.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from amuse_jax.system import cpus, devices, environment, memory, paths, xla

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
VIDEOS = flags.DEFINE_integer(
    'videos',
    1,
    'Videos that every compared row processes at once, except in sweeps.',
    lower_bound=1,
)
COMPILE = flags.DEFINE_bool('compile', True, 'Measure torch.compile too, except in sweeps.')
FREED_MEMORY = flags.DEFINE_enum(
    'freed_memory', 'kept', ['kept', 'returned', 'both'],
    'What glibc does with freed memory: kept, as amuse_jax.main sets it, or returned, its default.',
)  # fmt: skip
OUT = flags.DEFINE_string('out', 'runs/benchmark', 'Folder of the figures and of the input data.')
TOPOLOGY = flags.DEFINE_list(
    'topology',
    [],
    'For tpu and gpu: topologies, such as v5e:4x4 (the default for tpu; also v5p and v6e) or '
    'h100:1x1x1 (the default for gpu; also a100-80, h200 and b200).',
)
DUMP = flags.DEFINE_string(
    'dump',
    None,
    'For tpu and gpu: file for the text of the compiled module. With several topologies, the name '
    'of the topology is added to the name of the file.',
)
PLUGIN = flags.DEFINE_string(
    'plugin',
    None,
    "For gpu: folder with JAX's compiler for GPUs; by default a folder of the cache.",
)


def main(argv: list[str]) -> None:
    """Run the benchmark, or what the argument names: `tpu`, `gpu`, `attention` or `on-device`."""
    environment.set_up()
    if argv[1:] in (['tpu'], ['gpu']):
        _ahead_of_time(CONFIG.value, argv[1])
        return
    works = {'': _run, 'attention': _attention, 'on-device': _on_device}
    if ' '.join(argv[1:]) not in works:
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
    xla.set_environment(shares_gpus=True)  # with PyTorch
    xla.run_cpu_programs_in_place()
    from amuse_jax.errors import StageError
    from amuse_jax.run import settings

    try:
        settings.check(CONFIG.value)
        devices.start()
        works[' '.join(argv[1:])](CONFIG.value)
    except StageError as error:
        sys.exit(f'amuse_jax: {error}')


def _ahead_of_time(config, accelerator: str) -> None:
    """Compile for every topology, and print and save the figures."""
    from amuse_jax.errors import StageError

    logging.set_verbosity(logging.WARNING)
    try:
        if accelerator == 'gpu':
            from amuse_jax.benchmark import plugin

            given = PLUGIN.value
            chosen = paths.from_user(given, '--plugin').absolute() if given else None
            plugin.use(chosen or plugin.default_folder())
        os.environ['JAX_PLATFORMS'] = 'cpu'  # the accelerators of this host are not used
        (_gpu if accelerator == 'gpu' else _tpu)(config)
    except StageError as error:
        sys.exit(f'amuse_jax: {error}')


def _tpu(config) -> None:
    from amuse_jax.benchmark import ahead_of_time, tpu
    from amuse_jax.run import settings

    overrides = config_flags.get_override_values(flags.FLAGS['config'])
    topologies = TOPOLOGY.value or ['v5e:4x4']
    for topology in topologies:
        fitted = tpu.fit_to_chips(config, overrides, tpu.num_batch_shards(config, topology))
        settings.check(fitted)
        step = tpu.compile_step(fitted, topology, _dump(topology, topologies))
        print(tpu.describe_step(step) + '\n', flush=True)
        ahead_of_time.save(_out() / 'tpu.json', tpu.figures(step))


def _gpu(config) -> None:
    from amuse_jax.benchmark import ahead_of_time, gpu
    from amuse_jax.run import settings

    overrides = config_flags.get_override_values(flags.FLAGS['config'])
    topologies = TOPOLOGY.value or ['h100:1x1x1']
    for topology in topologies:
        fitted = gpu.fit_to_cards(config, overrides, gpu.num_batch_shards(config, topology))
        settings.check(fitted)
        step = gpu.compile_step(fitted, topology, _dump(topology, topologies))
        print(gpu.describe_step(step) + '\n', flush=True)
        ahead_of_time.save(_out() / 'gpu.json', gpu.figures(step))


def _out() -> Path:
    return paths.from_user(OUT.value, '--out')


def _dump(topology: str, topologies: list[str]) -> Path | None:
    """Return the file for the module's text: --dump, with the topology if there are several."""
    path = paths.from_user(DUMP.value, '--dump') if DUMP.value else None
    if path and len(topologies) > 1:
        path = path.with_name(f'{path.stem}-{topology.replace(":", "-")}{path.suffix}')
    return path


def _attention(config) -> None:
    from amuse_jax.benchmark import attention

    attention.measure(config, ROUNDS.value, _out() / 'attention.json')


def _on_device(config) -> None:
    from amuse_jax.benchmark import on_device

    on_device.run(config, ROUNDS.value, _out())


def _run(config) -> None:
    import jax
    import torch.compiler.config

    from amuse_jax.benchmark import report, rows, sweeps

    folder = _out().absolute()
    has_compiler = shutil.which(os.environ.get('CXX', 'g++')) is not None
    if COMPILE.value and not has_compiler:
        print('torch.compile is not measured: it needs a C++ compiler, and g++ is not installed')
    plan = rows.Plan(
        rows=ROWS.value or (() if SWEEP.value else rows.default_rows(config)),
        sweeps=SWEEP.value,
        dtypes=DTYPES.value,
        rounds=ROUNDS.value,
        with_compile=COMPILE.value and has_compiler,
        freed_memory=FREED_MEMORY.value,
        folder=folder,
        videos=VIDEOS.value,
    )
    # Without caches, compile times are those of a first run.
    jax.config.update('jax_enable_compilation_cache', False)
    torch.compiler.config.force_disable_caches = True
    torch.set_num_threads(cpus.usable())
    figures = report.Figures(folder / 'figures.json', config)
    print(report.machine_name(), flush=True)
    rows.measure(config, plan, figures)
    if figures.sweeps:
        sweeps.plot(figures.sweeps, folder / 'sweeps.png')


if __name__ == '__main__':
    app.run(main)
