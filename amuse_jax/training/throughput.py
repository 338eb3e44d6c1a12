"""Throughput of training and the estimated time left."""

import datetime
import time
from collections.abc import Mapping

from jax.sharding import Mesh

from amuse_jax.models import flops

# Metrics that depend on the clock; all other metrics are the same in every run.
CLOCK = (
    'samples_per_second',
    'step_seconds',
    'data_wait_seconds',
    'data_wait_share',
    'flops_per_second',
    'utilisation',
    'seconds_left',
)


class Throughput:
    """Measures the time of steps since the last line of metrics and since the start of the phase.

    Attributes:
      steps: number of steps since the last line.
    """

    def __init__(self, mesh: Mesh):
        self._devices, self._peak = mesh.size, flops.peak(mesh.devices.flat[0])
        self.start_phase(0)

    def start_phase(self, step_flops: int) -> None:
        """Start a phase whose steps need `step_flops` FLOPs each in matrix products."""
        self._step_flops, self._first, self._count = step_flops, None, 0
        self.start_interval()

    def start_interval(self) -> None:
        """Start a new interval of measurement, after a line of metrics was written."""
        self._since, self._waited, self.steps = time.monotonic(), 0.0, 0
        self._has_compiled = self._first is not None

    def add_data_wait(self, seconds: float) -> None:
        """Add the time that a step has waited for its data."""
        self._waited += seconds

    def count_step(self) -> None:
        """Count a step that was started."""
        self.steps += 1
        self._count += 1
        if self._first is None:  # the first step also compiles
            self._first = time.monotonic()

    def values(self, samples: float, steps_left: int) -> dict[str, float]:
        """Return the metrics of CLOCK that are known.

        The first line of a phase has no rates, because most of its time is compilation.

        Args:
          samples: number of samples trained on since the last line.
          steps_left: number of steps until the end of training. The time left assumes that later
            phases are as fast as this one.
        """
        seconds = time.monotonic() - self._since
        rate = self._step_flops * self.steps / seconds
        values = {}
        if self._has_compiled:
            values = {
                'samples_per_second': samples / seconds,
                'step_seconds': seconds / self.steps,
                'data_wait_seconds': self._waited / self.steps,
                'data_wait_share': self._waited / seconds,
                'flops_per_second': rate,
            }
        if values and self._peak:
            values['utilisation'] = rate / (self._peak * self._devices)
        if self._count > 1:
            mean = (time.monotonic() - self._first) / (self._count - 1)
            values['seconds_left'] = mean * steps_left
        return values


def describe(values: Mapping[str, float]) -> str:
    """Return a line for the log that describes the values of CLOCK."""
    if 'step_seconds' not in values:
        return 'compiled'
    parts = [
        f'{values["step_seconds"]:.3f} s a step '
        f'({values["data_wait_seconds"]:.3f} s, {values["data_wait_share"]:.1%} for data)',
        f'{values["samples_per_second"]:.1f} samples/s',
        f'{values["flops_per_second"] / 1e12:.3g} TFLOP/s',
    ]
    if 'utilisation' in values:
        parts[-1] += f' ({values["utilisation"]:.0%} of the peak)'
    if 'seconds_left' in values:
        parts.append(f'{datetime.timedelta(seconds=round(values["seconds_left"]))} left')
    return ', '.join(parts)
