"""A trace of a few training steps, for TensorBoard's profile plugin and for Perfetto.

The trace is in `FOLDER/tensorboard/plugins/profile/TIME/`, beside the metrics. TensorBoard needs
the package xprof to show it. `perfetto_trace.json.gz` there can be opened at ui.perfetto.dev.
"""

import contextlib
from pathlib import Path
from typing import Any

import jax
from absl import logging

from amuse_jax.parsing import parse_steps
from amuse_jax.system import hosts


class Profiler:
    """Traces the steps that `loop.profile_steps` names; in the first process only.

    Args:
      folder: the stage's folder.
      steps: the value of `loop.profile_steps`.
    """

    def __init__(self, folder: Path, steps: str):
        self._folder = folder / 'tensorboard'
        self._steps = parse_steps(steps) if hosts.is_first() else range(0)
        self._is_tracing = False

    def start_step(self, step: int, state: Any) -> None:
        """Start the trace if `step` is the first step to trace.

        Args:
          step: the number of the step that begins.
          state: arrays that earlier steps compute; the trace starts when they are ready.
        """
        if step in self._steps and not self._is_tracing:
            jax.block_until_ready(state)
            jax.profiler.start_trace(self._folder, create_perfetto_trace=True)
            self._is_tracing = True

    def end_step(self, step: int, state: Any) -> None:
        """End the trace and write it if `step` is the last step to trace; arguments as above."""
        if self._is_tracing and step + 1 >= self._steps.stop:
            jax.block_until_ready(state)
            self.close()

    def close(self) -> None:
        """End a trace that is in progress, and write it."""
        if not self._is_tracing:
            return
        self._is_tracing = False
        # JAX prints a line about the file, and so does this.
        with contextlib.redirect_stdout(None):
            jax.profiler.stop_trace()
        logging.info('the trace of the steps %s is in %s', _describe(self._steps), self._folder)


def _describe(steps: range) -> str:
    return f'{steps.start} to {steps.stop - 1}'
