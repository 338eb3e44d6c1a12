"""The training step compiled ahead of time for TPUs: its memory and an estimate of its speed.

No TPU is needed; libtpu holds the compiler.
"""

import dataclasses
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import tabulate
from jax.experimental import topologies
from ml_collections import ConfigDict

from amuse_jax.benchmark import ahead_of_time, hlo, hlo_tpu, report
from amuse_jax.errors import StageError
from amuse_jax.models import flops
from amuse_jax.training import sharding

# Settings unless the command line gives others. Up to 256 chips can share 256 videos.
DEFAULTS = {'train.batch_size': 256, 'loop.remat_policy': 'inputs'}
VIDEOS_PER_CHIP = 4  # at a time; with v1's sizes they take 11.1 of a v5e's 16 GB

# The share of the matrix unit's time that the schedules of our kernels fill with attention's
# products. (For the gradient, this includes the scores that are computed again.) The compiler's
# estimates leave kernels out.
KERNEL_UTILISATION_SOURCE = 'the schedules of libtpu 0.0.42 for a v5e'
KERNEL_UTILISATION = {
    'attention': 0.57,
    'attention_gradient': 0.85,
    'mlp': 0.87,
    'mlp_gradient': 0.90,
}


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
class CompiledStep(ahead_of_time.CompiledStep):
    """What the compiler reports about a step; see ahead_of_time.CompiledStep.

    Attributes:
      costs: costs of the compiled module.
    """

    costs: hlo_tpu.Costs

    @property
    def chip(self) -> Chip:
        """The rates of the topology's chips."""
        return CHIPS[self.topology.split(':')[0]]

    @property
    def peak(self) -> float:
        """The peak FLOP/s of a chip."""
        return self.chip.flops

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
    def utilisation_bound(self) -> float:
        """The `utilisation` if products, memory and links ran at their peaks at the same time."""
        seconds = self.seconds()
        products = self.flops / self.devices / self.chip.flops
        return self.useful_seconds / max(products, seconds['memory'], seconds['links'])


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


def compile_step(config: ConfigDict, topology: str, dump: Path | None = None) -> CompiledStep:
    """Compile the step with `config.train.batch_size` videos, sharded as in `config.mesh`.

    Args:
      config: the config, from `fit_to_chips`.
      topology: the topology, such as 'v5e:4x4'.
      dump: file to which the text of the compiled module is written.

    Raises:
      StageError: libtpu is not installed, the topology is unknown, the batch or a parameter cannot
        be sharded evenly, or the step does not fit into memory.
    """
    devices = topology_devices(topology)
    step, compiled = ahead_of_time.compile_step(config, topology, devices, 'tpu', dump=dump)
    return CompiledStep(**ahead_of_time.fields(step), costs=hlo_tpu.costs(compiled.as_text()))


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
        'kernel_utilisation': KERNEL_UTILISATION | {'source': KERNEL_UTILISATION_SOURCE},
        'step_seconds': step.step_seconds,
        'utilisation': step.utilisation,
        'utilisation_bound': step.utilisation_bound,
        'training': step.training_estimate(),
    }


def describe_step(step: CompiledStep) -> str:
    """Return the figures of a step as text, with the operations that take the most time."""
    chip, seconds, training = step.chip, step.seconds(), step.training_estimate()
    train, policy = step.config.train, step.config.loop.remat_policy
    shares = ', '.join(f'{share:.0%} ({name})' for name, share in KERNEL_UTILISATION.items())
    lines = [
        ('global batch', f'{train.batch_size} videos, {train.questions} questions each'),
        ('split', f'into {train.parts} parts, keeping {policy} for the gradient'),
        ('compiled in', f'{step.compile_seconds:.0f} s'),
        ('memory per device', f'{step.bytes / 1e9:.2f} of {chip.memory / 1e9:.0f} GB'),
        *((f'- {name}', f'{size / 1e9:.2f} GB') for name, size in step.memory.items()),
        ('FLOPs per device', f'{step.flops / step.devices / 1e12:.2f} T'),
        ('useful FLOPs per device', f'{step.useful_flops / step.devices / 1e12:.2f} T'),
        ('bytes to and from memory', f'{step.costs.hbm_bytes / 1e9:.1f} GB'),
        *(
            (f'{kind}s', f'{step.costs.calls[kind]}, {size / 1e6:.1f} MB')
            for kind, size in sorted(step.costs.collectives.items())
        ),
        *((f'seconds: {name}', f'{value:.4f}') for name, value in seconds.items()),
        ('kernels fill', f'{shares} of the matrix unit, from {KERNEL_UTILISATION_SOURCE}'),
        ('seconds per step, estimated', f'{step.step_seconds:.4f}'),
        ('utilisation, estimated', f'{step.utilisation:.1%} of bfloat16'),
        ('utilisation, at most', f'{step.utilisation_bound:.1%}'),
        (
            f'{train.epochs} epochs of {ahead_of_time.VIDEOS:,} videos',
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
