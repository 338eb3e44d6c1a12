"""The training loop of both stages: steps, metrics, validation, checkpoints, and going on after a
kill."""

import contextlib
import dataclasses
import functools
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grain
import jax
import optax
from absl import logging
from jax.sharding import Mesh
from ml_collections import ConfigDict
from tqdm import tqdm

from amuse_jax.data import pipeline
from amuse_jax.errors import StageError
from amuse_jax.models import flops
from amuse_jax.system import hosts, preemption
from amuse_jax.training import checkpoints, metrics, sharding, state, throughput
from amuse_jax.training.state import Arrays, Structure
from amuse_jax.training.step import Evaluation, Loss, evaluation_step, means, train_step
from amuse_jax.training.watchdog import Watchdog

LINE_SECONDS = 10.0  # at least, between lines of the log


@dataclasses.dataclass(frozen=True)
class Validation:
    """What every epoch ends with.

    Attributes:
      batches: the validation set, once.
      evaluate: see step.Evaluation.
    """

    batches: grain.MapDataset
    evaluate: Evaluation


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stretch of training with its own data, loss and schedule; its optimiser starts afresh.

    Attributes:
      epochs: how many.
      batches: all their batches, `len(batches) / epochs` to the epoch.
      loss: see step.Loss.
      learning_rate: of the step within the phase.
      samples: the metric whose weight counts the samples.
      validation: after every epoch; None: none.
      parts: of a batch, see step.train_step.
    """

    epochs: int
    batches: grain.MapDataset
    loss: Loss
    learning_rate: optax.Schedule
    samples: str
    validation: Validation | None = None
    parts: int = 1

    @property
    def steps_per_epoch(self) -> int:
        return len(self.batches) // self.epochs


@dataclasses.dataclass(frozen=True)
class Job:
    """What to train and where to keep it.

    Attributes:
      name: of the progress bar.
      folder: gets checkpoints/, metrics.jsonl, tensorboard/ and, with `best_by`, best/.
      structure: of the model.
      frozen: arrays that do not train.
      metrics: names of the sums that the losses return.
      phases: in order.
      settings: the config's section `loop`.
      mesh: of sharding.mesh.
      seed: of dropout and other randomness inside the model.
      video_ids: by record, for messages.
      best_by: the metric whose highest validation value is kept in best/; '' for none.
    """

    name: str
    folder: Path
    structure: Structure
    frozen: Arrays
    metrics: tuple[str, ...]
    phases: Sequence[Phase]
    settings: ConfigDict
    mesh: Mesh
    seed: int
    video_ids: Sequence[str]
    best_by: str = ''


def fit(job: Job, params: Arrays) -> Arrays:
    """Trains `params` through all phases and returns the last ones; the given ones are used up.

    Killed at any moment and called again with the same job, it goes on from the newest checkpoint
    and ends with the same parameters and metrics, bit for bit on the same machine. Devices and
    hosts may be others by then.

    Raises:
      StageError: more than loop.max_refused steps were refused because they were not finite.
      Preempted: there was a notice; the state is saved.
    """
    watchdog = Watchdog(job.folder, job.settings.stuck_seconds, job.video_ids)
    with preemption.deferred(), watchdog:
        with contextlib.closing(_Run(job, params, watchdog)) as run:
            return run.to_the_end()


class _Run:
    """A job under way."""

    def __init__(self, job: Job, params: Arrays, watchdog: Watchdog):
        self.job, self.watchdog = job, watchdog
        self.mesh, self.whole = job.mesh, sharding.whole(job.mesh)
        self.frozen = sharding.put(job.frozen, sharding.of_parameters(job.frozen, self.mesh))
        self.key = jax.jit(lambda: jax.random.key(job.seed), out_shardings=self.whole)()
        self.checkpoints = checkpoints.Checkpoints(job.folder / 'checkpoints', job.settings.keep)
        self.best = checkpoints.Best(job.folder / 'best') if job.best_by else None
        self.unseen = []  # (step, is_finite on the device, records) of steps not looked at yet
        self._enter(0, params, refused=0)
        restored = self.checkpoints.restore(
            self.state, lambda progress: pipeline.iterate(job.phases[progress['phase']].batches)
        )
        lines = 0
        self.owes_validation = False  # of the current step, which ends an epoch
        if restored:
            self.state, self.iterator, progress = restored
            self.phase_index, lines = progress['phase'], progress['lines']
            self.owes_validation = progress.get('owes_validation', False)  # older ones never do
        self.step = int(self.state.step)
        self.metrics = metrics.MetricsWriter(job.folder, lines, self.step)
        is_quiet = None if hosts.is_first() else True  # None: where there is no terminal
        self.bar = tqdm(
            total=self._last(), initial=self.step, desc=job.name, unit='step', disable=is_quiet
        )
        self.shown, self.said_at = {}, -LINE_SECONDS
        self.saved_at = time.monotonic()
        self.pace = throughput.Throughput(job.mesh)
        self.counted = self._weight(self.state.sums)  # before the kill of a run that goes on

    def to_the_end(self) -> Arrays:
        self._run_phase()
        while self.phase_index + 1 < len(self.job.phases):
            self._enter(self.phase_index + 1, self.state.params, int(self.state.refused))
            self._run_phase()
        return self.state.params

    def close(self) -> None:
        self.bar.close()
        self.metrics.close()
        self.watchdog.at('the last checkpoint')
        self.checkpoints.close()
        if self.best:
            self.best.close()

    @property
    def phase(self) -> Phase:
        return self.job.phases[self.phase_index]

    def _first_step(self) -> int:
        return sum(len(phase.batches) for phase in self.job.phases[: self.phase_index])

    def _epoch(self) -> int:
        """Epochs completed after the current step, those of earlier phases included."""
        before = sum(phase.epochs for phase in self.job.phases[: self.phase_index])
        return before + (self.step - self._first_step()) // self.phase.steps_per_epoch

    def _enter(self, index: int, params: Arrays, refused: int) -> None:
        """Starts a phase: a fresh optimiser and a fresh iterator."""
        self.phase_index = index
        fresh = functools.partial(
            state.fresh,
            optimizer=state.adam(self.phase.learning_rate),
            metrics=self.job.metrics,
            step=self._first_step(),
            refused=refused,
        )
        self.shardings = sharding.of_state(jax.eval_shape(fresh, params), self.mesh)
        params = sharding.put(params, self.shardings.params)
        self.state = jax.jit(fresh, donate_argnums=0, out_shardings=self.shardings)(params)
        self.iterator = pipeline.iterate(self.phase.batches)

    def _run_phase(self) -> None:
        phase, settings = self.phase, self.job.settings
        structure, level = self.job.structure, settings.optimization_level
        optimizer = state.adam(phase.learning_rate)
        train = train_step(phase.loss, structure, optimizer, level, self.shardings, phase.parts)
        validation = phase.validation
        if validation:
            evaluate = evaluation_step(validation.evaluate, structure, level, self.mesh)
        last = self._first_step() + len(phase.batches)
        if self.owes_validation:
            self._validate(validation.batches, evaluate)
        is_new = True
        while self.step < last:
            batch = self._next_batch()
            placed = sharding.place(batch, self.mesh)
            self.watchdog.at(f'step {self.step + 1}')
            if is_new:
                traced = train.trace(self.state, self.frozen, placed, self.key)
                self.pace.enter(flops.of_products(traced.jaxpr))
                is_new = False
            self.state, is_finite = train(self.state, self.frozen, placed, self.key)
            self.step += 1
            self.pace.step()
            self.unseen.append((self.step, is_finite, batch['record']))
            self.bar.update()
            at_epoch_end = (self.step - self._first_step()) % phase.steps_per_epoch == 0
            self.owes_validation = at_epoch_end and validation is not None
            if at_epoch_end or self.step % settings.log_steps == 0:
                self._log()
            self._stop_if_noticed()
            if self.owes_validation:
                self._validate(validation.batches, evaluate)
            if self.step == last or self._is_due():
                self._save()

    def _stop_if_noticed(self) -> None:
        if preemption.is_noticed():
            self._save()
            logging.info('%s: SIGTERM: saved at step %d', self.job.name, self.step)
            raise preemption.Preempted

    def _is_due(self) -> bool:
        """Whether it is time for a checkpoint; for all hosts by the first one's clock."""
        is_due = time.monotonic() - self.saved_at > self.job.settings.checkpoint_seconds
        if hosts.count() == 1:
            return is_due
        # Only after a line of the log, when they have waited for each other anyway.
        return self.pace.steps == 0 and bool(hosts.first_says(is_due))

    def _next_batch(self) -> pipeline.Batch:
        begun = time.monotonic()
        self.watchdog.at(f'the data of step {self.step + 1}')
        batch = next(self.iterator)
        self.pace.waited(time.monotonic() - begun)
        return batch

    def _weight(self, sums: Arrays) -> float:
        """The samples that are in the sums."""
        return float(sums[self.phase.samples][1])

    def _zeros(self) -> Arrays:
        return sharding.put(state.empty_sums(self.job.metrics), self.whole)

    def _log(self) -> None:
        """Writes the means since the last line; the only place where a step's results are waited
        for."""
        self._look()
        sums = jax.device_get(self.state.sums)
        values = means(sums)
        self.state = self.state._replace(sums=self._zeros())
        rate = self.phase.learning_rate(self.step - self._first_step() - 1)
        clock = self.pace.values(self._weight(sums) - self.counted, self._last() - self.step)
        self.metrics.write(
            self.step, self._epoch(), values | {'learning_rate': float(rate)} | clock
        )
        self._show(loss=values.get('loss', float('nan')))
        now = time.monotonic()
        if self.bar.disable and hosts.is_first() and now - self.said_at > LINE_SECONDS:
            self.said_at = now
            loss = values.get('loss', float('nan'))
            logging.info(
                '%s: step %d of %d, loss %.4f, %s',
                self.job.name, self.step, self._last(), loss, throughput.described(clock),
            )  # fmt: skip
        self.pace.restart()
        self.counted = 0.0

    def _last(self) -> int:
        """The last step of all."""
        return sum(len(phase.batches) for phase in self.job.phases)

    def _validate(self, batches: grain.MapDataset, evaluate: Callable[..., Any]) -> None:
        """Pays the validation that is owed. A notice interrupts it, since it may take minutes; the
        run that goes on begins it anew."""
        sums = self._zeros()
        for batch in pipeline.iterate(batches):
            self._stop_if_noticed()
            self.watchdog.at(f'the validation after step {self.step}')
            placed = sharding.place(batch, self.mesh)
            sums, _ = evaluate(self.state.params, self.frozen, placed, sums)
        values = {f'val_{name}': mean for name, mean in means(jax.device_get(sums)).items()}
        self.metrics.write(self.step, self._epoch(), values)
        self._show(
            **{name: values[name] for name in ('val_loss', 'val_accuracy') if name in values}
        )
        if self.best:
            record = {'step': self.step, 'epoch': self._epoch(), **values}
            self.best.offer(values[f'val_{self.job.best_by}'], self.state.params, record)
        self.owes_validation = False
        self.pace.restart()

    def _show(self, **values: float) -> None:
        self.shown |= {name: f'{value:.3f}' for name, value in values.items()}
        self.bar.set_postfix(self.shown, refresh=False)

    def _look(self) -> None:
        """Names the refused steps since the last look; stops when there were too many."""
        unseen, self.unseen = self.unseen, []
        for number, is_finite, records in unseen:
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
                'state is saved. Lower the learning rate or set aside the videos named above'
            )

    def _save(self) -> None:
        self._look()
        self._write_checkpoint()

    def _write_checkpoint(self) -> None:
        self.watchdog.at(f'the checkpoint of step {self.step}')
        self.metrics.sync()
        progress = {
            'phase': self.phase_index,
            'lines': self.metrics.lines,
            'owes_validation': self.owes_validation,
        }
        self.checkpoints.save(self.state, self.iterator, progress)
        self.saved_at = time.monotonic()
