"""How fast a training is, and how long it will still take."""

import datetime
import time
from collections.abc import Mapping

from jax.sharding import Mesh

from amuse_jax.models import flops

# Values of a line of metrics that depend on the clock; all others are the same in every run.
CLOCK = (
    'samples_per_second',
    'step_seconds',
    'data_wait_seconds',
    'data_wait_share',
    'flops_per_second',
    'utilisation',
    'seconds_left',
)


class Pace:
    """Clocks the steps since the last line of metrics, and since a phase has begun.

    Attributes:
      steps: since the last line.
    """

    def __init__(self, mesh: Mesh):
        self._devices, self._peak = mesh.size, flops.peak(mesh.devices.flat[0])
        self.enter(0)

    def enter(self, step_flops: int) -> None:
        """A phase begins, whose steps do so many FLOPs in matrix products."""
        self._step_flops, self._first, self._count = step_flops, None, 0
        self.restart()

    def restart(self) -> None:
        """A line was written."""
        self._since, self._waited, self.steps = time.monotonic(), 0.0, 0
        self._has_compiled = self._first is not None

    def waited(self, seconds: float) -> None:
        """For the data of a step."""
        self._waited += seconds

    def step(self) -> None:
        """A step was started."""
        self.steps += 1
        self._count += 1
        if self._first is None:  # it has been compiled, too
            self._first = time.monotonic()

    def values(self, samples: float, steps_left: int) -> dict[str, float]:
        """Those of CLOCK that are known; the first line of a phase has no rates, since its time is
        mostly that of compiling.

        Args:
          samples: that were trained on since the last line.
          steps_left: until all is done, as if later phases were as fast as this one.
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


def described(values: Mapping[str, float]) -> str:
    """Values of CLOCK, for the log."""
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
