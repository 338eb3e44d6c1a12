"""The training step compiled ahead of time for TPUs that are not there: what fits, and how fast it
can be at most."""

import dataclasses
import os
import time
from typing import Any

import jax
import tabulate
from jax.experimental import topologies
from ml_collections import ConfigDict

from amuse_jax import flops
from amuse_jax.benchmark import compiling, hlo
from amuse_jax.models import target
from amuse_jax.stages import StageError
from amuse_jax.training import sharding

# Of the matrix unit's time, what the schedule of our kernels fills; the compiler says nothing of
# kernels. From the schedules that libtpu 0.0.42 made for a v5e: forwards 0.5, backwards 0.37.
KERNELS_SHARE = 0.37


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
      devices: how many.
      videos, questions: of the whole batch, and about each video.
      useful_flops: of the step's products, none counted twice that is computed twice.
      compile_seconds: that it took here.
      memory: bytes of arguments, results and temporaries, what is donated counted once.
      costs: of the module.
    """

    topology: str
    devices: int
    videos: int
    questions: int
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
        """What bounds the step: the compiler's estimate of its operations, kernels by their
        products, and the links; and the memory's traffic, which runs beside them."""
        kernels = self.costs.kernel_flops / self.chip.flops / KERNELS_SHARE
        sent = sum(size * hlo.SENT[kind] for kind, size in self.costs.collectives.items())
        return {
            'operations': self.costs.cycles / self.chip.clock,
            'kernels': kernels,
            'links': sent * (self.devices - 1) / self.devices / self.chip.links,
            'memory': self.costs.hbm_bytes / self.chip.bandwidth,
        }

    @property
    def step_seconds(self) -> float:
        seconds = self.seconds()
        return max(seconds.pop('memory'), sum(seconds.values()))

    @property
    def utilisation(self) -> float:
        """At most this share of the chips' peak does useful work."""
        return self.useful_flops / self.devices / self.chip.flops / self.step_seconds


def compile_step(config: ConfigDict, topology: str) -> Compiled:
    """Compiles the step of `config.train.batch_size` videos, shared out by `config.mesh`.

    Raises:
      StageError: libtpu is not installed, the topology is unknown, the batch or a parameter can't
        be shared out, or the step does not fit the memory.
    """
    devices = describe(topology)
    mesh = sharding.mesh(config.mesh, devices)
    with target.compiling_for('tpu'):
        step, given = compiling.abstract_step(config, mesh)
        begun = time.perf_counter()
        try:
            made = step.lower(*given).compile()
        except jax.errors.JaxRuntimeError as error:
            if 'RESOURCE_EXHAUSTED' not in str(error):
                raise
            raise StageError(f'{topology}: {str(error).splitlines()[0]}') from error
        seconds = time.perf_counter() - begun
    found = made.memory_analysis()
    return Compiled(
        topology=topology,
        devices=len(devices),
        videos=config.train.batch_size,
        questions=config.train.questions,
        useful_flops=useful_flops(config),
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
            "(pip install 'amuse_jax[tpu]'), and see that no other process uses it"
        ) from error


def useful_flops(config: ConfigDict) -> float:
    """Of the products of a step that keeps everything for its gradient, on all devices."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.loop.kept = 'everything'
    step, given = compiling.abstract_step(config, sharding.single())
    return flops.of_products(step.trace(*given).jaxpr)


def figures(made: Compiled) -> dict[str, Any]:
    """What is told, as numbers."""
    costs = made.costs
    return {
        'devices': made.devices,
        'videos': made.videos,
        'questions': made.questions,
        'compile_seconds': made.compile_seconds,
        'memory_bytes': made.memory,
        'useful_flops': made.useful_flops,
        'hbm_bytes': costs.hbm_bytes,
        'collectives': {
            kind: {'calls': costs.calls[kind], 'bytes': size}
            for kind, size in sorted(costs.collectives.items())
        },
        'seconds': made.seconds(),
        'step_seconds': made.step_seconds,
        'utilisation': made.utilisation,
    }


def report(made: Compiled) -> str:
    """The figures as text, and the operations that take the most of the compiler's estimate."""
    chip, seconds = made.chip, made.seconds()
    lines = [
        ('global batch', f'{made.videos} videos, {made.questions} questions each'),
        ('compiled in', f'{made.compile_seconds:.0f} s'),
        ('memory per device', f'{made.bytes / 1e9:.2f} of {chip.memory / 1e9:.0f} GB'),
        *((f'  {name}', f'{size / 1e9:.2f} GB') for name, size in made.memory.items()),
        ('useful FLOPs per device', f'{made.useful_flops / made.devices / 1e12:.2f} T'),
        ('bytes to and from memory', f'{made.costs.hbm_bytes / 1e9:.1f} GB'),
        *(
            (f'{kind}s', f'{made.costs.calls[kind]}, {size / 1e6:.1f} MB')
            for kind, size in sorted(made.costs.collectives.items())
        ),
        *((f'seconds: {name}', f'{value:.4f}') for name, value in seconds.items()),
        ('seconds per step', f'{made.step_seconds:.4f}'),
        ('utilisation at most', f'{made.utilisation:.1%} of bfloat16'),
    ]
    costly = [
        (f'{cycles / chip.clock:.4f} s', name) for name, cycles in made.costs.scopes.most_common(10)
    ]
    tables = (tabulate.tabulate(rows, tablefmt='plain') for rows in (lines, costly))
    return '\n'.join((f'{made.topology}, {made.devices} chips', *tables))
