"""The training loop of both stages: steps, metrics, validation, checkpoints and resuming."""

import contextlib
import functools
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import grain
import jax
import numpy as np
import optax
from absl import logging
from tqdm import tqdm

from amuse_jax.data import pipeline
from amuse_jax.errors import StageError
from amuse_jax.models import flops
from amuse_jax.system import hosts, preemption
from amuse_jax.training import (
    checkpoints,
    device_memory,
    metrics,
    profiling,
    sharding,
    state,
    throughput,
)
from amuse_jax.training.jobs import Job, Phase
from amuse_jax.training.state import Arrays
from amuse_jax.training.step import TrainStep, evaluation_step, means, train_step
from amuse_jax.training.watchdog import Watchdog

LINE_SECONDS = 10.0  # least time between two lines of the log


def fit(job: Job, params: Arrays) -> Arrays:
    """Train through all phases and return the final parameters.

    A killed run that is called again with the same job resumes from the newest checkpoint. On the
    same machine its parameters and metrics are bit for bit those of an uninterrupted run. The
    devices and hosts may change between runs.

    Args:
      job: what to train.
      params: the initial parameters. They are donated: the caller must not use them again.

    Raises:
      StageError: more than loop.max_refused steps were refused because they were not finite, or the
        memory of a device is full.
      Preempted: a notice of preemption arrived; the state is saved.
    """
    watchdog = Watchdog(job.folder, job.settings.stuck_seconds, job.video_ids)
    with preemption.deferred(), watchdog:
        with device_memory.full_as_error(job.name, job.memory_advice):
            with contextlib.closing(_Run(job, params, watchdog)) as run:
                return run.run_all_phases()


class _Run:
    """The state of a running job."""

    def __init__(self, job: Job, params: Arrays, watchdog: Watchdog):
        self.job, self.watchdog = job, watchdog
        self.mesh, self.replicated = job.mesh, sharding.replicated(job.mesh)
        self.frozen = sharding.shard_params(
            job.frozen, sharding.parameter_shardings(job.frozen, self.mesh)
        )
        self.key = jax.jit(lambda: jax.random.key(job.seed), out_shardings=self.replicated)()
        self.checkpoints = checkpoints.Checkpoints(job.folder / 'checkpoints', job.settings.keep)
        self.best = (
            checkpoints.Best(job.folder / 'best', job.best_is_lowest) if job.best_by else None
        )
        self.unchecked = []  # (step, is_finite on the device, records) of steps not checked yet
        self._start_phase(0, params, refused=0)
        restored = self.checkpoints.restore(
            self.state, lambda progress: self._iterate(job.phases[progress['phase']].batches)
        )
        lines = 0
        self.owes_validation = False  # whether the validation after the current step is still due
        if restored:
            self.state, self.iterator, progress = restored
            self.phase_index, lines = progress['phase'], progress['lines']
            # These two are not in old checkpoints.
            self.owes_validation = progress.get('owes_validation', False)
            self.parts = progress.get('parts', 0)
        self.step = int(self.state.step)
        self.metrics = metrics.MetricsWriter(job.folder, lines, self.step)
        is_quiet = None if hosts.is_first() else True  # None: disabled if there is no terminal
        self.bar = tqdm(
            total=self._last_step(), initial=self.step, desc=job.name, unit='step', disable=is_quiet
        )
        self.bar_values, self.logged_at = {}, -LINE_SECONDS
        self.saved_at = time.monotonic()
        self.throughput = throughput.Throughput(job.mesh)
        self.profiler = profiling.Profiler(job.folder, job.settings.profile_steps)
        self.restored_samples = self._count_samples(self.state.sums)  # counted before a restart

    def run_all_phases(self) -> Arrays:
        """Run the remaining phases and return the final parameters."""
        self._run_phase()
        while self.phase_index + 1 < len(self.job.phases):
            self._start_phase(self.phase_index + 1, self.state.params, int(self.state.refused))
            self._run_phase()
        return self.state.params

    def close(self) -> None:
        """Close the files, once every checkpoint is written."""
        self.bar.close()
        self.profiler.close()
        self.metrics.close()
        self.watchdog.heartbeat('the last checkpoint')
        self.checkpoints.close()
        if self.best:
            self.best.close()

    @property
    def phase(self) -> Phase:
        """The current phase."""
        return self.job.phases[self.phase_index]

    def _first_step(self) -> int:
        return sum(len(phase.batches) for phase in self.job.phases[: self.phase_index])

    def _epoch(self) -> int:
        """Return the number of epochs completed after the current step, in all phases."""
        before = sum(phase.epochs for phase in self.job.phases[: self.phase_index])
        return before + (self.step - self._first_step()) // self.phase.steps_per_epoch

    def _optimizer(self) -> optax.GradientTransformation:
        return state.adam(self.phase.learning_rate, self.phase.weight_decay)

    def _start_phase(self, index: int, params: Arrays, refused: int) -> None:
        """Start a phase with a new optimiser state and a new data iterator."""
        self.phase_index = index
        self.parts = 0  # as chosen for this phase; 0: not yet
        init_state = functools.partial(
            state.init_state,
            optimizer=self._optimizer(),
            metrics=self.job.metrics,
            step=self._first_step(),
            refused=refused,
        )
        self.shardings = sharding.state_shardings(jax.eval_shape(init_state, params), self.mesh)
        params = sharding.shard_params(params, self.shardings.params)
        self.state = jax.jit(init_state, donate_argnums=0, out_shardings=self.shardings)(params)
        self.iterator = self._iterate(self.phase.batches)

    def _run_phase(self) -> None:
        phase, settings = self.phase, self.job.settings
        structure, level = self.job.structure, settings.optimization_level
        build_step = functools.partial(
            train_step,
            phase.loss,
            structure,
            self._optimizer(),
            level,
            self.shardings,
            compares_videos=phase.compares_videos,
            clip_norm=phase.clip_norm,
        )
        validation = phase.validation
        if validation:
            evaluate = evaluation_step(validation.evaluate, structure, level, self.mesh)
        last = self._first_step() + len(phase.batches)
        is_planned = bool(phase.tokens) or not phase.parts
        if is_planned and self.step < last:
            train = self._plan_step(build_step)
        else:
            train = build_step(parts=phase.parts or 1)
        if self.owes_validation:
            self._validate(validation.batches, evaluate)
        is_first_step = not is_planned
        while self.step < last and not self._is_out_of_patience():
            records, sharded = self._next_batch()
            self.watchdog.heartbeat(f'step {self.step + 1}')
            if is_first_step:
                traced = train.trace(self.state, self.frozen, sharded, self.key)
                self.throughput.start_phase(flops.count_matmul_flops(traced.jaxpr))
                is_first_step = False
            self.profiler.start_step(self.step + 1, self.state)
            with jax.profiler.StepTraceAnnotation('train', step_num=self.step + 1):
                self.state, is_finite = train(self.state, self.frozen, sharded, self.key)
            self.step += 1
            self.profiler.end_step(self.step, self.state)
            self.throughput.count_step()
            self.unchecked.append((self.step, is_finite, records))
            self.bar.update()
            at_epoch_end = (self.step - self._first_step()) % phase.steps_per_epoch == 0
            self.owes_validation = at_epoch_end and validation is not None
            if at_epoch_end or self.step % settings.log_steps == 0:
                self._log()
            self._stop_on_notice()
            if self.owes_validation:
                self._validate(validation.batches, evaluate)
            if self.step == last or self._is_out_of_patience() or self._checkpoint_is_due():
                self._save()
        if phase.tokens:
            phase.tokens.release()

    def _is_out_of_patience(self) -> bool:
        """Return whether the phase ends here, because its validation has not improved for long.

        Only the best validation so far decides, so a resumed run ends at the same step.
        """
        if not self.phase.patience or self.owes_validation or self.best.record is None:
            return False
        return self._epoch() - self.best.record['epoch'] >= self.phase.patience

    def _plan_step(self, build_step: Callable[..., TrainStep]) -> Callable[..., Any]:
        """Compile the step, in as many parts as it needs, and move stored tokens to where room is.

        Args:
          build_step: builds the step for a number of `parts`.

        Returns:
          The compiled step.
        """
        tokens, first = self.phase.tokens, self.phase.batches[0]
        batch = dict(sharding.shard_batch(tokens.without(first) if tokens else first, self.mesh))
        videos = len(batch['record'])
        batch |= tokens.shapes(videos) if tokens else {}

        def compile_step(parts: int) -> jax.stages.Compiled:
            self.watchdog.heartbeat(f'the compilation of the step in {parts} parts')
            traced = build_step(parts=parts).trace(self.state, self.frozen, batch, self.key)
            self.throughput.start_phase(flops.count_matmul_flops(traced.jaxpr))
            return traced.lower().compile()

        if self.phase.parts:
            compiled = compile_step(self.phase.parts)
        else:
            self.parts, compiled = device_memory.choose_parts(
                compile_step,
                sharding.possible_parts(videos, self.mesh, at_least=self.parts),
                device_memory.room_for_step(self.mesh),
            )
        if tokens:
            self.watchdog.heartbeat('the stored tokens')
            tokens.place(videos, device_memory.step_bytes(compiled))
        return compiled

    def _iterate(self, batches: grain.MapDataset) -> Iterator[tuple[np.ndarray, Arrays]]:
        """Return the batches' records and arrays; the reading threads move them to the devices."""
        return pipeline.iterate(
            batches.map(lambda batch: (batch['record'], sharding.shard_batch(batch, self.mesh)))
        )

    def _gather(self, sharded: Arrays) -> Arrays:
        """Add the stored tokens that the devices hold to a batch."""
        return self.phase.tokens.gather(sharded) if self.phase.tokens else sharded

    def _stop_on_notice(self) -> None:
        if preemption.notice_received():
            self._save()
            logging.info('%s: SIGTERM: saved at step %d', self.job.name, self.step)
            raise preemption.Preempted

    def _checkpoint_is_due(self) -> bool:
        """Return whether a checkpoint is due; the clock of the first host decides for all."""
        is_due = time.monotonic() - self.saved_at > self.job.settings.checkpoint_seconds
        if hosts.count() == 1:
            return is_due
        # Ask only after a line of the log, when the hosts have just waited for each other anyway.
        return self.throughput.steps == 0 and bool(hosts.broadcast_from_first(is_due))

    def _next_batch(self) -> tuple[np.ndarray, Arrays]:
        """Return the records and the arrays of the next batch."""
        start = time.monotonic()
        self.watchdog.heartbeat(f'the data of step {self.step + 1}')
        records, sharded = next(self.iterator)
        self.throughput.add_data_wait(time.monotonic() - start)
        return records, self._gather(sharded)

    def _count_samples(self, sums: Arrays) -> float:
        """Return the number of samples in the sums."""
        return float(sums[self.phase.samples][1])

    def _empty_sums(self) -> Arrays:
        return sharding.shard_params(state.empty_sums(self.job.metrics), self.replicated)

    def _log(self) -> None:
        """Write the means since the last line of metrics.

        Only this method waits for the results of a step.
        """
        self._check_finite()
        sums = jax.device_get(self.state.sums)
        values = means(sums)
        self.state = self.state._replace(sums=self._empty_sums())
        rate = self.phase.learning_rate(self.step - self._first_step() - 1)
        clock = self.throughput.values(
            self._count_samples(sums) - self.restored_samples, self._last_step() - self.step
        )
        self.metrics.write(
            self.step, self._epoch(), values | {'learning_rate': float(rate)} | clock
        )
        self._update_bar(loss=values.get('loss', float('nan')))
        now = time.monotonic()
        if self.bar.disable and hosts.is_first() and now - self.logged_at > LINE_SECONDS:
            self.logged_at = now
            loss = values.get('loss', float('nan'))
            logging.info(
                '%s: step %d of %d, loss %.4f, %s',
                self.job.name, self.step, self._last_step(), loss, throughput.describe(clock),
            )  # fmt: skip
        self.throughput.start_interval()
        self.restored_samples = 0.0

    def _last_step(self) -> int:
        """Return the number of the last step of the last phase."""
        return sum(len(phase.batches) for phase in self.job.phases)

    def _validate(self, batches: grain.MapDataset, evaluate: Callable[..., Any]) -> None:
        """Run the validation after the current step.

        It may take minutes, so a notice of preemption interrupts it; the resumed run repeats it.
        """
        sums = self._empty_sums()
        for _, sharded in self._iterate(batches):
            self._stop_on_notice()
            self.watchdog.heartbeat(f'the validation after step {self.step}')
            sums, _ = evaluate(self.state.params, self.frozen, self._gather(sharded), sums)
        values = {f'val_{name}': mean for name, mean in means(jax.device_get(sums)).items()}
        self.metrics.write(self.step, self._epoch(), values)
        self._update_bar(
            **{name: values[name] for name in ('val_loss', 'val_accuracy') if name in values}
        )
        if self.best:
            record = {'step': self.step, 'epoch': self._epoch(), **values}
            self.best.save_if_best(values[f'val_{self.job.best_by}'], self.state.params, record)
        self.owes_validation = False
        self.throughput.start_interval()

    def _update_bar(self, **values: float) -> None:
        self.bar_values |= {name: f'{value:.3f}' for name, value in values.items()}
        self.bar.set_postfix(self.bar_values, refresh=False)

    def _check_finite(self) -> None:
        """Log the steps that were refused since the last check; stop if there were too many."""
        unchecked, self.unchecked = self.unchecked, []
        for number, is_finite, records in unchecked:
            if not is_finite:
                videos = ', '.join(sorted({self.job.video_ids[record] for record in records}))
                logging.warning(
                    'step %d refused: its loss or gradient is not finite; videos %s (%s)',
                    number, videos, socket.gethostname(),
                )  # fmt: skip
        refused, limit = int(self.state.refused), self.job.settings.max_refused
        if refused > limit:
            self._write_checkpoint()
            raise StageError(
                f'{self.job.name} stopped at step {self.step}: {refused} steps had a loss or '
                f'gradient that is not finite, loop.max_refused allows {limit}; the last good '
                'state is saved. Lower the learning rate or remove the videos named above'
            )

    def _save(self) -> None:
        self._check_finite()
        self._write_checkpoint()

    def _write_checkpoint(self) -> None:
        self.watchdog.heartbeat(f'the checkpoint of step {self.step}')
        self.metrics.sync()
        progress = {
            'phase': self.phase_index,
            'lines': self.metrics.lines,
            'owes_validation': self.owes_validation,
            'parts': self.parts,
        }
        self.checkpoints.save(self.state, self.iterator, progress)
        self.saved_at = time.monotonic()
