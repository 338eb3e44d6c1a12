"""The training step compiled ahead of time for NVIDIA GPUs: its memory, its traffic and its time.

No GPU is needed. XLA's compiler for GPUs comes in two packages; see plugin.py. The estimate gives
every kernel the longer of two times: that of its matrix products at the rate that a large product
reaches on the card, and that of its bytes at the bandwidth of the card's memory; and a launch.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import tabulate
from jax.experimental import topologies
from ml_collections import ConfigDict

from amuse_jax.benchmark import ahead_of_time, hlo, hlo_gpu, report
from amuse_jax.errors import StageError
from amuse_jax.models import flops
from amuse_jax.training import sharding

LAUNCH_SECONDS = 2e-6  # between two kernels of a stream

# Without a GPU there is no autotuning, and Triton's default tiles do not fit every product.
OPTIONS = {'xla_gpu_enable_triton_gemm': False}


@dataclasses.dataclass(frozen=True)
class Card:
    """Rates of a card.

    Attributes:
      peak: published FLOP/s of dense bfloat16 products.
      measured: FLOP/s that a large bfloat16 product reaches.
      links: bytes per second that a card sends to other cards of its host by NVLink.
      network: bytes per second that a card sends to other hosts.
    """

    peak: float
    measured: float
    links: float
    network: float


# `peak`, `links` and `network` are from NVIDIA's data sheets of the cards and of the DGX systems
# with them. `measured` is from the table of maximum achievable matmul FLOPS in the book
# stas00/ml-engineering (compute/accelerator), which gives 794.5 for an H100 and for an H200; for
# these two it is 798, as an H100 was seen to reach with matrices of 8192 x 8192.
CARDS = {
    'a100-80': Card(flops.PEAKS['NVIDIA A100'], 271.2e12, 300e9, 25e9),
    'h100': Card(flops.PEAKS['NVIDIA H100'], 798e12, 450e9, 50e9),
    'h200': Card(flops.PEAKS['NVIDIA H200'], 798e12, 450e9, 50e9),
    'b200': Card(flops.PEAKS['NVIDIA B200'], 1745e12, 900e9, 50e9),
}


@dataclasses.dataclass(frozen=True)
class CompiledStep(ahead_of_time.CompiledStep):
    """What the compiler reports about a step; see ahead_of_time.CompiledStep.

    Attributes:
      costs: costs of the compiled module on one card.
    """

    costs: hlo_gpu.Costs

    @property
    def card(self) -> Card:
        """The rates of the topology's cards."""
        return CARDS[self.topology.split(':')[0]]

    @property
    def peak(self) -> float:
        """The published peak FLOP/s of a card."""
        return self.card.peak

    @property
    def card_memory(self) -> int:
        """The bytes of a card's memory."""
        return _described(self.topology, 'device_memory_size')

    @property
    def bandwidth(self) -> int:
        """The bandwidth of a card's memory in bytes per second."""
        return _described(self.topology, 'memory_bandwidth')

    def kernel_seconds(self, kernel: hlo_gpu.Kernel) -> float:
        """Return the estimated seconds of all runs of a kernel in a step.

        For a collective this is the launch only: `seconds` has the time of the links.
        """
        seconds = LAUNCH_SECONDS
        if kernel.kind != hlo_gpu.COLLECTIVES:
            products, memory = kernel.flops / self.card.measured, kernel.bytes / self.bandwidth
            seconds += max(products, memory)
        return kernel.times * seconds

    def seconds(self) -> dict[str, float]:
        """Return the estimated seconds of the parts of a step.

        `products` and `memory` are the times of all products and of all bytes alone. `kernels` is
        the sum of `kernel_seconds`. `links` is the time of the collectives in a ring, which nothing
        hides.
        """
        sent = sum(size * hlo.RING_SENDS[kind] for kind, size in self.costs.collectives.items())
        links = self.card.links
        if self.hosts > 1:  # the ring crosses hosts through the network cards of all their GPUs
            links = min(links, self.card.network * self.devices / self.hosts)
        return {
            'products': self.costs.flops / self.card.measured,
            'memory': sum(self.costs.bytes_by_kind().values()) / self.bandwidth,
            'kernels': sum(self.kernel_seconds(kernel) for kernel in self.costs.kernels),
            'links': sent * (self.devices - 1) / self.devices / links,
        }

    @property
    def step_seconds(self) -> float:
        """The estimated seconds of a step."""
        seconds = self.seconds()
        return seconds['kernels'] + seconds['links']

    @property
    def share_of_measured(self) -> float:
        """The useful work as a share of what the card's measured rate would do in a step."""
        return self.utilisation * self.card.peak / self.card.measured

    def scopes(self) -> Counter[str]:
        """Return the estimated seconds by scope: kind, source line and operation."""
        total = Counter()
        for kernel in self.costs.kernels:
            total[f'{kernel.kind}: {kernel.scope}'] += self.kernel_seconds(kernel)
        return total


def description(card: str) -> str:
    """Return the card's GpuTargetConfigProto as text."""
    return (Path(__file__).with_name('cards') / f'{card}.txtpb').read_text('utf-8')


def _described(topology: str, field: str) -> int:
    return int(re.search(rf'{field}: (\d+)', description(topology.split(':')[0])).group(1))


def fit_to_cards(config: ConfigDict, overrides: Collection[str], shards: int) -> ConfigDict:
    """Return the config with a batch of `train.batch_size` videos for every shard.

    Args:
      config: the sizes.
      overrides: names of the fields that the user has set; 'train.batch_size' then stays.
      shards: the number of shards into which the cards split a batch.
    """
    config = config.copy_and_resolve_references()
    if 'train.batch_size' not in overrides:
        with config.unlocked():
            config.train.batch_size *= shards
    return config


def num_batch_shards(config: ConfigDict, topology: str) -> int:
    """Return the number of shards into which the cards of a topology split a batch.

    Raises:
      StageError: see `topology_devices` and `sharding.mesh`.
    """
    return sharding.num_batch_shards(sharding.mesh(config.mesh, topology_devices(topology)))


def topology_devices(topology: str) -> list:
    """Return the devices of a topology such as 'h100:1x2x8': slices, hosts, cards of a host.

    Raises:
      StageError: the card or the shape is unknown, or the compiler for GPUs cannot describe it.
    """
    card, _, shape = topology.partition(':')
    if card not in CARDS or not re.fullmatch(r'[1-9]\d*x[1-9]\d*x[1-9]\d*', shape):
        raise StageError(
            f'--topology={topology}: expected {", ".join(CARDS)}, and slices, hosts and cards of a '
            'host, such as h100:1x2x8'
        )
    try:
        return list(
            topologies.get_topology_desc(
                platform='cuda', topology_name='', topology=shape, target_config=description(card)
            ).devices
        )
    except (RuntimeError, ValueError, NotImplementedError) as error:
        raise StageError(f'{topology} cannot be described: {str(error).splitlines()[0]}') from error


def compile_step(config: ConfigDict, topology: str, dump: Path | None = None) -> CompiledStep:
    """Compile the step with `config.train.batch_size` videos, sharded as in `config.mesh`.

    Args:
      config: the config, from `fit_to_cards`.
      topology: the topology, such as 'h100:1x1x8'.
      dump: file to which the text of the compiled module is written.

    Raises:
      StageError: the topology is unknown, the batch or a parameter cannot be sharded evenly, or the
        step does not fit into memory.
    """
    devices = topology_devices(topology)
    step, compiled = ahead_of_time.compile_step(config, topology, devices, 'gpu', OPTIONS, dump)
    return CompiledStep(**ahead_of_time.fields(step), costs=hlo_gpu.costs(compiled.as_text()))


def figures(step: CompiledStep) -> dict[str, Any]:
    """Return the figures of a step, as JSON values; bytes and FLOPs of the costs are per card."""
    costs, kinds = step.costs, step.costs.bytes_by_kind()
    return {
        'settings': step.settings(),
        'versions': report.package_versions('jax', 'jaxlib'),
        'devices': step.devices,
        'hosts': step.hosts,
        'compile_seconds': step.compile_seconds,
        'memory_bytes': step.memory,
        'card_memory_bytes': step.card_memory,
        'flops': step.flops,
        'useful_flops': step.useful_flops,
        'product_flops': costs.flops,
        'bytes': {kind: kinds[kind] for kind in hlo_gpu.KINDS},
        'kernels': costs.launches,
        'collectives': {
            kind: {'calls': costs.calls[kind], 'bytes': size}
            for kind, size in sorted(costs.collectives.items())
        },
        'seconds': step.seconds(),
        'step_seconds': step.step_seconds,
        'utilisation': step.utilisation,
        'share_of_measured': step.share_of_measured,
        'scopes': dict(step.scopes().most_common(10)),
        'training': step.training_estimate(),
    }


def describe_step(step: CompiledStep) -> str:
    """Return the figures of a step as text, with the scopes that take the most time."""
    card, costs, kinds = step.card, step.costs, step.costs.bytes_by_kind()
    train, training = step.config.train, step.training_estimate()
    lines = [
        ('global batch', f'{train.batch_size} videos, {train.questions} questions each'),
        ('split', f'into {train.parts} parts, keeping {step.config.loop.remat_policy}'),
        ('compiled in', f'{step.compile_seconds:.0f} s'),
        ('memory per card', f'{step.bytes / 1e9:.4g} of {step.card_memory / 1e9:.0f} GB'),
        *((f'- {name}', f'{size / 1e9:.4g} GB') for name, size in step.memory.items()),
        ('matrix products per card', f'{costs.flops / 1e12:.4g} TFLOP'),
        ('- not computed again', f'{step.useful_flops / step.devices / 1e12:.4g} TFLOP'),
        ('bytes to and from memory', f'{sum(kinds.values()) / 1e9:.4g} GB'),
        *((f'- {kind}', f'{kinds[kind] / 1e9:.4g} GB') for kind in hlo_gpu.KINDS),
        ('kernels', f'{costs.launches:,}'),
        *(
            (f'{kind}s', f'{costs.calls[kind]}, {size / 1e6:.1f} MB')
            for kind, size in sorted(costs.collectives.items())
        ),
        *((f'seconds: {name}', f'{value:.4f}') for name, value in step.seconds().items()),
        ('seconds per step, estimated', f'{step.step_seconds:.4f}'),
        (
            'useful products, estimated',
            f'{step.share_of_measured:.1%} of the {card.measured / 1e12:.0f} TFLOP/s that a large '
            f'product reaches, {step.utilisation:.1%} of the published {card.peak / 1e12:.0f}',
        ),
        (
            f'{train.epochs} epochs of {ahead_of_time.VIDEOS:,} videos',
            f'{training["hours"]:.2f} hours, {training["steps"]:.0f} steps',
        ),
    ]
    costly = [(f'{1e3 * value:.2f} ms', name) for name, value in step.scopes().most_common(10)]
    tables = (tabulate.tabulate(rows, tablefmt='plain') for rows in (lines, costly))
    return '\n'.join((f'{step.topology}, {step.devices} GPUs', *tables))
