"""The training step compiled ahead of time for TPUs that are not there: what fits, and an estimate
of how fast it is."""

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

# What is compiled unless the fields are set: 256 videos to a step, which 256 chips can share.
DEFAULTS = {'train.batch_size': 256, 'loop.kept': 'inputs'}
VIDEOS_AT_ONCE = 4  # of a chip: v1's take 11.1 of a v5e's 16 GB then
VIDEOS = 9_288  # of MUSIC-AVQA's version 1

# Of the matrix unit's time, what the schedule of our kernels fills with attention's products (the
# gradient's also holds the scores computed again); the compiler says nothing of kernels. From the
# schedules that libtpu 0.0.42 made for a v5e.
KERNEL_SHARES = {'attention': 0.5, 'attention_gradient': 0.3}


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip's published rates.

    Attributes:
      flops: of bfloat16 products per second.
      memory: bytes of HBM.
      bandwidth: of HBM, bytes per second.
      links: bytes per second to all its neighbours together.
      clock: cycles per second; `flops` over what the matrix units do in a cycle.
    """

    flops: float
    memory: float
    bandwidth: float
    links: float
    clock: float


# Google Cloud's documentation of v5e, v5p and v6e.
CHIPS = {
    'v5e': Chip(flops.PEAKS['TPU v5 lite'], 16e9, 819e9, 200e9, 1.5e9),
    'v5p': Chip(flops.PEAKS['TPU v5'], 95e9, 2765e9, 600e9, 1.75e9),
    'v6e': Chip(flops.PEAKS['TPU v6 lite'], 32e9, 1640e9, 448e9, 1.75e9),
}


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler says of a step, per device unless said otherwise.

    Attributes:
      topology: such as 'v5e:4x4'.
      config: the step's.
      devices, hosts: how many.
      flops: of the step's products on all devices.
      useful_flops: of them, none counted twice that is computed again for the gradient.
      compile_seconds: that it took here.
      memory: bytes of arguments, results and temporaries, what is donated counted once.
      costs: of the module.
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
        return CHIPS[self.topology.split(':')[0]]

    @property
    def bytes(self) -> int:
        return sum(self.memory.values())

    def seconds(self) -> dict[str, float]:
        """What the step is estimated to take: the compiler's cycles of its operations, kernels by
        their products and KERNEL_SHARES, and the links; and the memory's traffic, which runs beside
        them."""
        filled = sum(size / KERNEL_SHARES[name] for name, size in self.costs.kernel_flops.items())
        sent = sum(size * hlo.SENT[kind] for kind, size in self.costs.collectives.items())
        return {
            'operations': self.costs.cycles / self.chip.clock,
            'kernels': filled / self.chip.flops,
            'links': sent * (self.devices - 1) / self.devices / self.chip.links,
            'memory': self.costs.hbm_bytes / self.chip.bandwidth,
        }

    @property
    def step_seconds(self) -> float:
        seconds = self.seconds()
        return max(seconds.pop('memory'), sum(seconds.values()))

    @property
    def utilisation(self) -> float:
        """The share of the chips' peak that does useful work, by the estimate of the step."""
        return self._useful_seconds / self.step_seconds

    @property
    def bound(self) -> float:
        """What `utilisation` would be if products ran at the chips' peak, and the memory's traffic
        and the links beside them."""
        seconds = self.seconds()
        products = self.flops / self.devices / self.chip.flops
        return self._useful_seconds / max(products, seconds['memory'], seconds['links'])

    @property
    def _useful_seconds(self) -> float:
        return self.useful_flops / self.devices / self.chip.flops

    def settings(self) -> dict[str, Any]:
        """What the figures depend on."""
        config = self.config
        return {
            'topology': self.topology,
            'config': config.name,
            'videos': config.train.batch_size,
            'questions': config.train.questions,
            'parts': config.train.parts,
            'encoded_dtype': config.train.encoded_dtype,
            'kept': config.loop.kept,
            'dtype': config.model.dtype,
            'mesh': config.mesh.to_dict(),
        }

    def training(self) -> dict[str, float]:
        """Of `train.epochs` epochs of VIDEOS videos by the step's estimate: steps, hours, and the
        bytes of stored tokens that each host reads per second; and the hours of pretraining the
        frozen encoders, whose gradient is taken to cost twice their forward pass, at the same
        share of the peak."""
        train, step = self.config.train, self.step_seconds
        steps = train.epochs * VIDEOS / train.batch_size
        tokens = compiling.stored_tokens(self.config, train.batch_size).values()
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


def shares(config: ConfigDict, topology: str) -> int:
    """Return the number of parts into which the chips of a topology share out a batch.

    Raises:
      StageError: see `describe` and `sharding.mesh`.
    """
    return sharding.shares(sharding.mesh(config.mesh, describe(topology)))


def fitted(config: ConfigDict, given: Collection[str], shares: int) -> ConfigDict:
    """Return the config with DEFAULTS, and with as many parts as let a chip take VIDEOS_AT_ONCE.

    Args:
      config: the sizes.
      given: names of fields that stay as they are, such as 'train.parts'.
      shares: the number of parts into which chips share out a batch.
    """
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.update_from_flattened_dict(
            {name: value for name, value in DEFAULTS.items() if name not in given}
        )
        if 'train.parts' not in given:
            config.train.parts = max(1, -(-config.train.batch_size // (shares * VIDEOS_AT_ONCE)))
    return config


def compile_step(config: ConfigDict, topology: str) -> Compiled:
    """Compiles the step of `config.train.batch_size` videos, shared out by `config.mesh`.

    Args:
      config: what `fitted` returns.
      topology: such as 'v5e:4x4'.

    Raises:
      StageError: libtpu is not installed, the topology is unknown, the batch or a parameter can't
        be shared out, or the step does not fit the memory.
    """
    devices = describe(topology)
    mesh = sharding.mesh(config.mesh, devices)
    with platform.compiling_for('tpu'):
        step, given = compiling.abstract_step(config, mesh)
        begun = time.perf_counter()
        traced = step.trace(*given)
        try:
            made = traced.lower().compile()
        except jax.errors.JaxRuntimeError as error:
            if 'RESOURCE_EXHAUSTED' not in str(error):
                raise
            raise StageError(f'{topology}: {str(error).splitlines()[0]}') from error
        seconds = time.perf_counter() - begun
    found = made.memory_analysis()
    return Compiled(
        topology=topology,
        config=config,
        devices=len(devices),
        hosts=len({device.process_index for device in devices}),
        flops=flops.of_products(traced.jaxpr),
        useful_flops=compiling.useful_flops(config),
        compile_seconds=seconds,
        memory={
            'arguments': found.argument_size_in_bytes,
            'results': found.output_size_in_bytes - found.alias_size_in_bytes,
            'temporaries': found.temp_size_in_bytes,
            'code': found.generated_code_size_in_bytes,
        },
        costs=hlo.costs(made.as_text()),
    )


def describe(topology: str) -> list:
    """The devices of a topology such as 'v5e:4x4'.

    Raises:
      StageError: libtpu is not installed, or knows no such topology.
    """
    if topology.split(':')[0] not in CHIPS:
        raise StageError(f'--topology={topology}: expected {", ".join(CHIPS)} and a shape')
    os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')  # there is no TPU to ask about itself
    os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')  # nor one to keep from others
    try:
        return topologies.get_topology_desc(topology, platform='tpu').devices
    except (ImportError, RuntimeError, ValueError, NotImplementedError) as error:
        raise StageError(
            f'{topology} cannot be described: {str(error).splitlines()[0]}; install libtpu '
            "(pip install '.[tpu]'), and see that no other process uses it"
        ) from error


def figures(made: Compiled) -> dict[str, Any]:
    """What is told, as numbers."""
    costs = made.costs
    return {
        'settings': made.settings(),
        'versions': report.versions('jax', 'libtpu'),
        'devices': made.devices,
        'compile_seconds': made.compile_seconds,
        'memory_bytes': made.memory,
        'flops': made.flops,
        'useful_flops': made.useful_flops,
        'hbm_bytes': costs.hbm_bytes,
        'collectives': {
            kind: {'calls': costs.calls[kind], 'bytes': size}
            for kind, size in sorted(costs.collectives.items())
        },
        'seconds': made.seconds(),
        'step_seconds': made.step_seconds,
        'utilisation': made.utilisation,
        'utilisation_bound': made.bound,
        'training': made.training(),
    }


def keep(path: Path, run: dict[str, Any]) -> None:
    """Writes a run's `figures` beside those of other settings, in place of those of the same."""
    runs = json.loads(path.read_text()).get('runs', []) if path.exists() else []
    others = [other for other in runs if other['settings'] != run['settings']]
    write_json(path, {'runs': [*others, run]})


def told(made: Compiled) -> str:
    """The figures as text, and the operations that take the most of the compiler's estimate."""
    chip, seconds, training = made.chip, made.seconds(), made.training()
    train = made.config.train
    lines = [
        ('global batch', f'{train.batch_size} videos, {train.questions} questions each'),
        ('taken', f'in {train.parts} parts, keeping {made.config.loop.kept} for the gradient'),
        ('compiled in', f'{made.compile_seconds:.0f} s'),
        ('memory per device', f'{made.bytes / 1e9:.2f} of {chip.memory / 1e9:.0f} GB'),
        *((f'  {name}', f'{size / 1e9:.2f} GB') for name, size in made.memory.items()),
        ('FLOPs per device', f'{made.flops / made.devices / 1e12:.2f} T'),
        ('of them useful', f'{made.useful_flops / made.devices / 1e12:.2f} T'),
        ('bytes to and from memory', f'{made.costs.hbm_bytes / 1e9:.1f} GB'),
        *(
            (f'{kind}s', f'{made.costs.calls[kind]}, {size / 1e6:.1f} MB')
            for kind, size in sorted(made.costs.collectives.items())
        ),
        *((f'seconds: {name}', f'{value:.4f}') for name, value in seconds.items()),
        ('seconds per step, estimated', f'{made.step_seconds:.4f}'),
        ('utilisation, estimated', f'{made.utilisation:.1%} of bfloat16'),
        ('utilisation, at most', f'{made.bound:.1%}'),
        (
            f'{train.epochs} epochs of {VIDEOS:,} videos',
            f'{training["hours"]:.2f} hours, {training["steps"]:.0f} steps, '
            f'{training["steps_per_second"]:.2g} per second',
        ),
        ('each host reads', f'{training["read_per_host"] / 1e9:.2g} GB/s of stored tokens'),
        (
            "pretraining at this share of the chips' peak",
            f'{training["pretraining_hours"]:.2f} hours, {made.config.pretrain.epochs} epochs',
        ),
    ]
    costly = [
        (f'{cycles / chip.clock:.4f} s', name) for name, cycles in made.costs.scopes.most_common(10)
    ]
    tables = (tabulate.tabulate(rows, tablefmt='plain') for rows in (lines, costly))
    return '\n'.join((f'{made.topology}, {made.devices} chips', *tables))
