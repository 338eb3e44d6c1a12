"""The training step that `gpu` and `tpu` estimate, run on this machine's device and traced.

The step reads stored tokens and answers all questions of its videos. On a card of gpu.CARDS the
estimate for the module that was run stands beside the measurement.
"""

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from amuse_jax.benchmark import ahead_of_time, compiling, gpu, hlo_gpu, inputs, report, timing
from amuse_jax.models import flops
from amuse_jax.training import sharding
from amuse_jax.training.state import TrainState

WARMUP, TRACED = 2, 3  # steps
SCALE = 0.02  # of random weights


@dataclasses.dataclass
class Arguments:
    """Arguments of the compiled step."""

    state: TrainState
    frozen: Mapping[str, jax.Array]
    batch: Mapping[str, jax.Array]
    key: jax.Array


def run(config: ConfigDict, rounds: int, folder: Path) -> dict[str, Any]:
    """Compile, run and trace the step with `train.batch_size` videos on the first device.

    Args:
      config: the sizes.
      rounds: number of measured steps.
      folder: gets figures in step.json, the module's text in step.txt, and the trace of TRACED
        steps in trace/, which TensorBoard and Perfetto open. Figures are written when they are
        known, so an estimate that fails leaves the measurement.

    Returns:
      The figures, as JSON values.
    """
    device = jax.devices()[0]
    card = card_of(device.device_kind)
    topology = f'{card or device.platform}:1x1x1'
    step, compiled = ahead_of_time.compile_step(
        config, topology, [device], device.platform, dump=folder / 'step.txt'
    )
    print(f'{report.machine_name()}: compiled in {step.compile_seconds:.0f} s', flush=True)
    arguments = random_arguments(config, device)
    times = timing.Times(_steps(compiled, arguments, WARMUP + rounds)[WARMUP:])
    found = _figures(step, device, times)
    path = folder / 'step.json'
    ahead_of_time.save(path, found)
    print(_describe(found), flush=True)
    with jax.profiler.trace(str(folder / 'trace')):
        _steps(compiled, arguments, TRACED)
    if card:
        costs = hlo_gpu.costs(compiled.as_text())
        estimated = gpu.CompiledStep(**ahead_of_time.fields(step), costs=costs)
        found['estimate'] = gpu.figures(estimated)
        ahead_of_time.save(path, found)
        print(f'estimated: {gpu.describe_step(estimated)}', flush=True)
    else:
        print(f'no estimate: {device.device_kind} is none of {", ".join(gpu.CARDS)}', flush=True)
    return found


def card_of(kind: str) -> str | None:
    """Return the name in gpu.CARDS of the card that JAX calls `kind`, or None."""
    for name in gpu.CARDS:
        generation, _, memory = name.partition('-')
        if f'NVIDIA {generation.upper()}' in kind and (not memory or f'{memory}GB' in kind):
            return name
    return None


def random_arguments(config: ConfigDict, device: jax.Device) -> Arguments:
    """Return random arguments of the step on a device: weights, tokens and questions."""
    mesh = sharding.mesh(config.mesh, [device])
    _, (initial, frozen, batch, key) = compiling.abstract_step(config, mesh)
    random = np.random.default_rng(0)
    block = random.normal(size=2**20).astype(np.float32)

    def normal(shape, scale=1.0):
        return np.resize(block, shape.shape).astype(shape.dtype) * np.asarray(scale, shape.dtype)

    def weight(name, shape):
        if not jnp.issubdtype(shape.dtype, jnp.floating):
            return np.zeros(shape.shape, shape.dtype)
        if len(shape.shape) > 1:
            return normal(shape, SCALE)
        return np.full(shape.shape, name.endswith(('scale', 'var')), shape.dtype)

    params, frozen_arrays = (
        {name: weight(name, shape) for name, shape in shapes.items()}
        for shapes in (initial.params, frozen)
    )
    zeros = jax.tree.map(lambda shape: np.zeros(shape.shape, shape.dtype), initial)
    questions = inputs.random_batch(config, config.train.batch_size, config.train.questions)
    arrays = {name: questions.get(name, None) for name in batch}
    arrays = {
        name: normal(batch[name]) if array is None else array for name, array in arrays.items()
    }
    placed = jax.tree.map(
        lambda array, shape: jax.device_put(array, shape.sharding),
        (zeros._replace(params=params), frozen_arrays, arrays),
        (initial, frozen, batch),
    )
    return Arguments(*placed, jax.device_put(jax.random.key(0), key.sharding))


def _steps(compiled: jax.stages.Compiled, arguments: Arguments, count: int) -> tuple[float, ...]:
    """Run the step several times and return the seconds of each; the state is updated."""
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        arguments.state, is_finite = jax.block_until_ready(
            compiled(arguments.state, arguments.frozen, arguments.batch, arguments.key)
        )
        seconds.append(time.perf_counter() - start)
        if not is_finite:
            raise FloatingPointError('the loss of random inputs is not finite, so no step was made')
    return tuple(seconds)


def _figures(
    step: ahead_of_time.CompiledStep, device: jax.Device, times: timing.Times
) -> dict[str, Any]:
    peak, rate = flops.peak(device), step.useful_flops / times.median
    return {
        'settings': step.settings(),
        'machine': report.machine_name(),
        'versions': report.package_versions('jax', 'jaxlib'),
        'compile_seconds': step.compile_seconds,
        'memory_bytes': step.memory,
        'peak_bytes': (device.memory_stats() or {}).get('peak_bytes_in_use'),
        'useful_flops': step.useful_flops,
        'step_seconds': times.median,
        'spread': times.spread,
        'useful_flops_per_second': rate,
        'utilisation': rate / peak if peak else None,
    }


def _describe(figures: Mapping[str, Any]) -> str:
    settings, share = figures['settings'], figures['utilisation']
    peak = figures['peak_bytes']
    parts = [
        f'{settings["videos"]} videos with {settings["questions"]} questions each, '
        f'{settings["dtype"]}: {figures["step_seconds"]:.4f} s a step (measured)',
        f'{figures["useful_flops_per_second"] / 1e12:.3g} TFLOP/s of useful products',
        f'{share:.1%} of the published peak' if share else '',
        f'{sum(figures["memory_bytes"].values()) / 1e9:.3g} GB planned',
        f'{peak / 1e9:.3g} GB at most in use' if peak else '',
    ]
    return ', '.join(part for part in parts if part)
