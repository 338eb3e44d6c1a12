"""The training step compiled ahead of time for TPUs: its memory and an estimate of its speed.

No TPU is needed; libtpu holds the compiler.
"""

import dataclasses
import json
import os
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import jax
import tabulate
from jax.experimental import topologies
from ml_collections import ConfigDict

from amuse_jax.benchmark import compiling, hlo, report
from amuse_jax.errors import StageError
from amuse_jax.models import flops, platform, summary
from amuse_jax.system.files import write_json
from amuse_jax.training import sharding

# Settings unless the command line gives others. Up to 256 chips can share 256 videos.
DEFAULTS = {'train.batch_size': 256, 'loop.remat_policy': 'inputs'}
VIDEOS_PER_CHIP = 4  # at a time; with v1's sizes they take 11.1 of a v5e's 16 GB
VIDEOS = 9_288  # in version 1 of MUSIC-AVQA

# The share of the matrix unit's time that the schedules of our kernels fill with attention's
# products. (For the gradient, this includes the scores that are computed again.) The compiler's
# estimates leave kernels out. The numbers are from the schedules of libtpu 0.0.42 for a v5e.
KERNEL_UTILISATION = {'attention': 0.5, 'attention_gradient': 0.3}


@dataclasses.dataclass(frozen=True)
class Chip:
    """The published rates of one chip.

    Attributes:
      flops: FLOPs per second of bfloat16 products.
      memory: bytes of HBM.
      bandwidth: bandwidth of HBM in bytes per second.
      links: bandwidth to all neighbours together in bytes per second.
      clock: cycles per second: `flops` divided by the FLOPs of the matrix units in a cycle.
    """

    flops: float
    memory: float
    bandwidth: float
    links: float
    clock: float


# From Google Cloud's documentation of v5e, v5p and v6e.
CHIPS = {
    'v5e': Chip(flops.PEAKS['TPU v5 lite'], 16e9, 819e9, 200e9, 1.5e9),
    'v5p': Chip(flops.PEAKS['TPU v5'], 95e9, 2765e9, 600e9, 1.75e9),
    'v6e': Chip(flops.PEAKS['TPU v6 lite'], 32e9, 1640e9, 448e9, 1.75e9),
}


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
      costs: costs of the compiled module.
    """

    topology: str
    config: ConfigDict
    devices: int
    hosts: int
    flops: float
    useful_flops: float
    compile_seconds: float
    memory: dict[str, int]
    costs: hlo.Costs

    @property
    def chip(self) -> Chip:
        """The rates of the topology's chips."""
        return CHIPS[self.topology.split(':')[0]]

    @property
    def bytes(self) -> int:
        """The memory that the step takes on a device."""
        return sum(self.memory.values())

    def seconds(self) -> dict[str, float]:
        """Return the estimated seconds of the parts of a step.

        These are the compiler's cycles of all operations, our kernels by their products and
        KERNEL_UTILISATION, and the links between chips. Memory traffic runs at the same time as
        these three.
        """
        kernel_flops = self.costs.kernel_flops.items()
        kernel_work = sum(size / KERNEL_UTILISATION[name] for name, size in kernel_flops)
        sent = sum(size * hlo.RING_SENDS[kind] for kind, size in self.costs.collectives.items())
        return {
            'operations': self.costs.cycles / self.chip.clock,
            'kernels': kernel_work / self.chip.flops,
            'links': sent * (self.devices - 1) / self.devices / self.chip.links,
            'memory': self.costs.hbm_bytes / self.chip.bandwidth,
        }

    @property
    def step_seconds(self) -> float:
        """The estimated seconds of a step."""
        seconds = self.seconds()
        return max(seconds.pop('memory'), sum(seconds.values()))

    @property
    def utilisation(self) -> float:
        """The share of the chips' peak that does useful work, from the estimated time of a step."""
        return self._useful_seconds / self.step_seconds

    @property
    def utilisation_bound(self) -> float:
        """The `utilisation` if products, memory and links ran at their peaks at the same time."""
        seconds = self.seconds()
        products = self.flops / self.devices / self.chip.flops
        return self._useful_seconds / max(products, seconds['memory'], seconds['links'])

    @property
    def _useful_seconds(self) -> float:
        return self.useful_flops / self.devices / self.chip.flops

    def settings(self) -> dict[str, Any]:
        """Return the settings that determine the figures, as JSON values."""
        config = self.config
        return {
            'topology': self.topology,
            'config': config.name,
            'videos': config.train.batch_size,
            'questions': config.train.questions,
            'parts': config.train.parts,
            'encoded_dtype': config.train.encoded_dtype,
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
        rate = self.devices * self.chip.flops * self.utilisation
        return {
            'steps': steps,
            'hours': steps * step / 3600,
            'steps_per_second': 1 / step,
            'read_per_host': sum(x.size * x.dtype.itemsize for x in tokens) / self.hosts / step,
            'pretraining_hours': pretraining / rate / 3600,
        }


def num_batch_shards(config: ConfigDict, topology: str) -> int:
    """Return the number of shards into which the chips of a topology split a batch.

    Raises:
      StageError: see `topology_devices` and `sharding.mesh`.
    """
    return sharding.num_batch_shards(sharding.mesh(config.mesh, topology_devices(topology)))


def fit_to_chips(config: ConfigDict, overrides: Collection[str], shards: int) -> ConfigDict:
    """Return the config with DEFAULTS, and with enough parts that a chip takes VIDEOS_PER_CHIP.

    Args:
      config: the sizes.
      overrides: names of the fields that the user has set, such as 'train.parts'; they stay.
      shards: the number of shards into which the chips split a batch.
    """
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.update_from_flattened_dict(
            {name: value for name, value in DEFAULTS.items() if name not in overrides}
        )
        if 'train.parts' not in overrides:
            config.train.parts = max(1, -(-config.train.batch_size // (shards * VIDEOS_PER_CHIP)))
    return config


def compile_step(config: ConfigDict, topology: str) -> CompiledStep:
    """Compile the step with `config.train.batch_size` videos, sharded as in `config.mesh`.

    Args:
      config: the config, from `fit_to_chips`.
      topology: the topology, such as 'v5e:4x4'.

    Raises:
      StageError: libtpu is not installed, the topology is unknown, the batch or a parameter cannot
        be sharded evenly, or the step does not fit into memory.
    """
    devices = topology_devices(topology)
    mesh = sharding.mesh(config.mesh, devices)
    with platform.compiling_for('tpu'):
        step, arguments = compiling.abstract_step(config, mesh)
        start = time.perf_counter()
        traced = step.trace(*arguments)
        try:
            compiled = traced.lower().compile()
        except jax.errors.JaxRuntimeError as error:
            if 'RESOURCE_EXHAUSTED' not in str(error):
                raise
            raise StageError(f'{topology}: {str(error).splitlines()[0]}') from error
        seconds = time.perf_counter() - start
    memory = compiled.memory_analysis()
    return CompiledStep(
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
        costs=hlo.costs(compiled.as_text()),
    )


def topology_devices(topology: str) -> list:
    """Return the devices of a topology such as 'v5e:4x4'.

    Raises:
      StageError: libtpu is not installed, or it does not know the topology.
    """
    if topology.split(':')[0] not in CHIPS:
        raise StageError(f'--topology={topology}: expected {", ".join(CHIPS)} and a shape')
    os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')  # there is no TPU whose metadata could be read
    os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')  # no TPU has to be locked either
    try:
        return topologies.get_topology_desc(topology, platform='tpu').devices
    except (ImportError, RuntimeError, ValueError, NotImplementedError) as error:
        raise StageError(
            f'{topology} cannot be described: {str(error).splitlines()[0]}; install libtpu '
            "(pip install '.[tpu]'), and make sure that no other process uses it"
        ) from error


def figures(step: CompiledStep) -> dict[str, Any]:
    """Return the figures of a step, as JSON values."""
    costs = step.costs
    return {
        'settings': step.settings(),
        'versions': report.package_versions('jax', 'libtpu'),
        'devices': step.devices,
        'compile_seconds': step.compile_seconds,
        'memory_bytes': step.memory,
        'flops': step.flops,
        'useful_flops': step.useful_flops,
        'hbm_bytes': costs.hbm_bytes,
        'collectives': {
            kind: {'calls': costs.calls[kind], 'bytes': size}
            for kind, size in sorted(costs.collectives.items())
        },
        'seconds': step.seconds(),
        'step_seconds': step.step_seconds,
        'utilisation': step.utilisation,
        'utilisation_bound': step.utilisation_bound,
        'training': step.training_estimate(),
    }


def save(path: Path, run: dict[str, Any]) -> None:
    """Add the `figures` of a run to a JSON file; they replace earlier ones with equal settings."""
    runs = json.loads(path.read_text()).get('runs', []) if path.exists() else []
    others = [other for other in runs if other['settings'] != run['settings']]
    write_json(path, {'runs': [*others, run]})


def describe_step(step: CompiledStep) -> str:
    """Return the figures of a step as text, with the operations that take the most time."""
    chip, seconds, training = step.chip, step.seconds(), step.training_estimate()
    train, policy = step.config.train, step.config.loop.remat_policy
    lines = [
        ('global batch', f'{train.batch_size} videos, {train.questions} questions each'),
        ('split', f'into {train.parts} parts, keeping {policy} for the gradient'),
        ('compiled in', f'{step.compile_seconds:.0f} s'),
        ('memory per device', f'{step.bytes / 1e9:.2f} of {chip.memory / 1e9:.0f} GB'),
        *((f'  {name}', f'{size / 1e9:.2f} GB') for name, size in step.memory.items()),
        ('FLOPs per device', f'{step.flops / step.devices / 1e12:.2f} T'),
        ('useful FLOPs per device', f'{step.useful_flops / step.devices / 1e12:.2f} T'),
        ('bytes to and from memory', f'{step.costs.hbm_bytes / 1e9:.1f} GB'),
        *(
            (f'{kind}s', f'{step.costs.calls[kind]}, {size / 1e6:.1f} MB')
            for kind, size in sorted(step.costs.collectives.items())
        ),
        *((f'seconds: {name}', f'{value:.4f}') for name, value in seconds.items()),
        ('seconds per step, estimated', f'{step.step_seconds:.4f}'),
        ('utilisation, estimated', f'{step.utilisation:.1%} of bfloat16'),
        ('utilisation, at most', f'{step.utilisation_bound:.1%}'),
        (
            f'{train.epochs} epochs of {VIDEOS:,} videos',
            f'{training["hours"]:.2f} hours, {training["steps"]:.0f} steps, '
            f'{training["steps_per_second"]:.2g} per second',
        ),
        ('each host reads', f'{training["read_per_host"] / 1e9:.2g} GB/s of stored tokens'),
        (
            "pretraining at this share of the chips' peak",
            f'{training["pretraining_hours"]:.2f} hours, {step.config.pretrain.epochs} epochs',
        ),
    ]
    costly = [
        (f'{cycles / chip.clock:.4f} s', name) for name, cycles in step.costs.scopes.most_common(10)
    ]
    tables = (tabulate.tabulate(rows, tablefmt='plain') for rows in (lines, costly))
    return '\n'.join((f'{step.topology}, {step.devices} chips', *tables))
