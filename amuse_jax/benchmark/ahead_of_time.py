"""The training step compiled ahead of time, also for accelerators that are not present."""

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from amuse_jax.benchmark import compiling
from amuse_jax.errors import StageError
from amuse_jax.models import flops, platform, summary
from amuse_jax.system.files import write_json
from amuse_jax.training import sharding

VIDEOS = 9_288  # in version 1 of MUSIC-AVQA

_LOWERING = {'gpu': ('cuda',)}  # others: the platform of the devices


@dataclasses.dataclass(frozen=True)
class CompiledStep:
    """What the compiler reports about a step; per device, unless stated otherwise.

    Attributes:
      topology: the topology, such as 'v5e:4x4'.
      config: the config of the step.
      devices: the number of devices.
      hosts: the number of hosts.
      flops: FLOPs of the step's matrix products on all devices.
      useful_flops: the same without products that are computed again for the gradient.
      compile_seconds: compile time on this machine.
      memory: bytes of arguments, results, temporaries and code. Donated arguments count once.
    """

    topology: str
    config: ConfigDict
    devices: int
    hosts: int
    flops: float
    useful_flops: float
    compile_seconds: float
    memory: dict[str, int]

    @property
    def bytes(self) -> int:
        """The memory that the step takes on a device."""
        return sum(self.memory.values())

    @property
    def peak(self) -> float:
        """The peak FLOP/s of a device."""
        raise NotImplementedError

    @property
    def step_seconds(self) -> float:
        """The estimated seconds of a step."""
        raise NotImplementedError

    @property
    def utilisation(self) -> float:
        """The share of the peak that does useful work, from the estimated time of a step."""
        return self.useful_seconds / self.step_seconds

    @property
    def useful_seconds(self) -> float:
        """The seconds that the useful products take at the peak."""
        return self.useful_flops / self.devices / self.peak

    def settings(self) -> dict[str, Any]:
        """Return the settings that determine the figures, as JSON values."""
        config = self.config
        return {
            'topology': self.topology,
            'config': config.name,
            'videos': config.train.batch_size,
            'questions': config.train.questions,
            'parts': config.train.parts,
            'remat_policy': config.loop.remat_policy,
            'dtype': config.model.dtype,
            'mesh': config.mesh.to_dict(),
        }

    def training_estimate(self) -> dict[str, float]:
        """Return estimates for a whole training of `train.epochs` epochs with VIDEOS videos.

        The estimates are the number of steps, hours, steps per second, and the bytes of stored
        tokens that each host reads per second. `pretraining_hours` is the time to pretrain the
        frozen encoders at the same share of the peak; their gradient is assumed to cost twice as
        much as their forward pass.
        """
        train, step = self.config.train, self.step_seconds
        steps = train.epochs * VIDEOS / train.batch_size
        tokens = compiling.stored_token_shapes(self.config, train.batch_size).values()
        universal = 3 * summary.describe(self.config)[0].flops
        pretraining = self.config.pretrain.epochs * VIDEOS * universal
        rate = self.devices * self.peak * self.utilisation
        return {
            'steps': steps,
            'hours': steps * step / 3600,
            'steps_per_second': 1 / step,
            'read_per_host': sum(x.size * x.dtype.itemsize for x in tokens) / self.hosts / step,
            'pretraining_hours': pretraining / rate / 3600,
        }


def compile_step(
    config: ConfigDict,
    topology: str,
    devices: Sequence[jax.Device],
    target: str,
    options: Mapping[str, Any] | None = None,
    dump: Path | None = None,
) -> tuple[CompiledStep, jax.stages.Compiled]:
    """Compile the step with `config.train.batch_size` videos, sharded as in `config.mesh`.

    Args:
      config: the sizes.
      topology: the name of the topology.
      devices: its devices.
      target: 'cpu', 'gpu' or 'tpu'.
      options: options of XLA.
      dump: file to which the text of the compiled module is written.

    Returns:
      What the compiler reports, and the compiled step.

    Raises:
      StageError: the batch or a parameter cannot be sharded evenly, or the step does not fit into
        memory.
    """
    mesh = sharding.mesh(config.mesh, list(devices))
    precision = jax.default_matmul_precision(platform.matmul_precision(config.model.dtype))
    with platform.compiling_for(target), precision:
        step, arguments = compiling.abstract_step(config, mesh)
        start = time.perf_counter()
        traced = step.trace(*arguments)
        try:
            lowered = traced.lower(lowering_platforms=_LOWERING.get(target))
            compiled = lowered.compile(compiler_options=options)
        except jax.errors.JaxRuntimeError as error:
            if 'RESOURCE_EXHAUSTED' not in str(error):
                raise
            raise StageError(f'{topology}: {str(error).splitlines()[0]}') from error
        seconds = time.perf_counter() - start
    if dump:
        dump.parent.mkdir(parents=True, exist_ok=True)
        dump.write_text(compiled.as_text(), 'utf-8')
    memory = compiled.memory_analysis()
    report = CompiledStep(
        topology=topology,
        config=config,
        devices=len(devices),
        hosts=len({device.process_index for device in devices}),
        flops=flops.count_matmul_flops(traced.jaxpr),
        useful_flops=compiling.useful_flops(config),
        compile_seconds=seconds,
        memory={
            'arguments': memory.argument_size_in_bytes,
            'results': memory.output_size_in_bytes - memory.alias_size_in_bytes,
            'temporaries': memory.temp_size_in_bytes,
            'code': memory.generated_code_size_in_bytes,
        },
    )
    return report, compiled


def fields(step: CompiledStep) -> dict[str, Any]:
    """Return the fields of a report by name, to build a report with more fields from it."""
    return {field.name: getattr(step, field.name) for field in dataclasses.fields(step)}


def save(path: Path, run: dict[str, Any]) -> None:
    """Add the `figures` of a run to a JSON file; they replace earlier ones with equal settings."""
    runs = json.loads(path.read_text('utf-8')).get('runs', []) if path.exists() else []
    others = [other for other in runs if other['settings'] != run['settings']]
    write_json(path, {'runs': [*others, run]})
