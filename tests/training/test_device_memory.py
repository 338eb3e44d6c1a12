import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging

from amuse_jax.errors import StageError
from amuse_jax.training import device_memory, loop, sharding
from tests.training import toy_job
from tests.training.processes import read_metrics

ROWS, WIDTH = 64, 256


@pytest.fixture
def lines(monkeypatch):
    found = []

    def keep(text, *args):
        found.append(text % args if args else str(text))  # Orbax logs dicts

    for level in ('info', 'warning'):
        monkeypatch.setattr(logging, level, keep)
    return found


def compile_step(parts):
    """Compile a function whose temporary memory is a matrix for the rows of one part."""

    def one_part(rows):
        table = jnp.sort(jnp.outer(rows, jnp.arange(WIDTH * WIDTH, dtype=jnp.float32)), axis=1)
        return jnp.sort(table, axis=0).sum()

    def step(x):
        return jax.lax.map(one_part, x.reshape(parts, -1)).sum()

    return jax.jit(step).lower(jax.ShapeDtypeStruct((ROWS,), jnp.float32)).compile()


def choose(room, candidates=(1, 2, 4, 8, 16, 32, 64)):
    return device_memory.choose_parts(compile_step, candidates, room)


@pytest.mark.parametrize('parts', [1, 4, 32])
def test_as_few_parts_as_fit_are_chosen_and_logged(parts, lines):
    needed = device_memory.step_bytes(compile_step(parts))
    fewer = device_memory.step_bytes(compile_step(max(parts // 2, 1)))
    room = int(needed / device_memory.USABLE) + 1
    assert parts == 1 or fewer > room  # the test's premise
    found, compiled = choose(room)
    assert found == parts
    assert device_memory.step_bytes(compiled) == needed
    assert len(lines) == 1
    assert lines[0].startswith(f'train.parts=0 chooses {parts}; a step takes ')
    assert f'free on each device: {room / 1e9:.3g} GB' in lines[0]


def test_without_a_fit_the_largest_number_is_taken_with_a_warning(lines):
    assert choose(1000, (1, 2, 4))[0] == 4
    assert any('no number of parts makes the step fit' in line for line in lines)


def test_unknown_room_takes_the_first(lines):
    assert choose(None, (2, 4))[0] == 2
    assert 'free on each device: unknown' in lines[0]


def test_a_host_shares_its_memory_among_its_devices():
    mesh = sharding.single_device_mesh()
    assert device_memory.room_for_step(mesh) == pytest.approx(
        device_memory.measure_room(mesh).host, rel=0.2
    )


def test_possible_parts_divide_the_videos_of_every_device():
    mesh = sharding.single_device_mesh()
    assert sharding.possible_parts(12, mesh) == [1, 2, 3, 4, 6, 12]
    assert sharding.possible_parts(12, mesh, at_least=4) == [4, 6, 12]
    assert sharding.possible_parts(4, mesh, at_least=8) == [4]
    for parts in sharding.possible_parts(12, mesh):
        sharding.check_parts(12, parts, mesh)


def automatic(folder, **options):
    """Return a toy job that chooses its parts itself, and its initial parameters."""
    folder.mkdir(exist_ok=True)
    job, params = toy_job.job(folder, **options)
    phases = [dataclasses.replace(phase, parts=0) for phase in job.phases]
    return dataclasses.replace(job, phases=phases), params


def test_a_job_with_room_trains_as_in_one_part(tmp_path, lines):
    plain, folder = tmp_path / 'plain', tmp_path / 'automatic'
    plain.mkdir()
    expected = loop.fit(*toy_job.job(plain, epochs=(1, 1)))
    found = loop.fit(*automatic(folder, epochs=(1, 1)))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert read_metrics(folder) == read_metrics(plain)
    assert len([line for line in lines if 'train.parts=0 chooses 1;' in line]) == 2


def test_a_job_without_room_takes_more_parts_and_a_resumed_one_as_many(
    tmp_path, monkeypatch, lines
):
    chosen = functools.partial(automatic, tmp_path / 'a', epochs=(2, 1))
    monkeypatch.setattr(device_memory, 'room_for_step', lambda mesh: 1)
    calm = loop.fit(*automatic(tmp_path / 'calm', epochs=(2, 1)))
    write = loop._Run._write_checkpoint

    def write_and_die(run):
        write(run)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop._Run, '_write_checkpoint', write_and_die)
        loop.fit(*chosen(checkpoint_seconds=0.0))
    assert any('train.parts=0 chooses 4;' in line for line in lines)
    lines.clear()
    monkeypatch.setattr(device_memory, 'room_for_step', lambda mesh: 10**9)
    resumed = loop.fit(*chosen())
    picked = [line.partition(';')[0][-1] for line in lines if 'train.parts=0' in line]
    assert picked == ['4', '1']  # the second phase has room from its start
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=0.1), resumed, calm)


def huge(model, batch, rngs):
    """A loss whose gradient needs 50 TB."""
    logits = model(batch['x'], rngs)
    row = jnp.full(2**21, logits.sum())
    value = (jnp.outer(row, row + 1) @ jnp.outer(row, row + 2)).sum()
    sums = {name: jnp.stack([value, 1.0]) for name in ('loss', 'accuracy')}
    return value, sums


def test_full_memory_ends_the_run_with_advice(tmp_path):
    job, params = toy_job.job(tmp_path, epochs=(1, 1))
    phases = [dataclasses.replace(phase, loss=huge) for phase in job.phases]
    job = dataclasses.replace(job, phases=phases, memory_advice='train smaller batches')
    with pytest.raises(StageError, match='toy does not fit into the memory of the device') as error:
        loop.fit(job, params)
    message = str(error.value)
    assert 'RESOURCE_EXHAUSTED' in message and message.endswith('train smaller batches')
    assert '\n' not in message


def test_other_errors_stay_as_they_are():
    with pytest.raises(ZeroDivisionError), device_memory.full_as_error('a', 'b'):
        1 / 0  # noqa: B018
    with pytest.raises(StageError, match='a does not fit'), device_memory.full_as_error('a', 'b'):
        np.zeros(2**60, np.uint8)
    with pytest.raises(jax.errors.JaxRuntimeError), device_memory.full_as_error('a', 'b'):
        jax.block_until_ready(jax.jit(lambda x: jax.pure_callback(_fail, x, x))(jnp.ones(2)))


def _fail(x):
    raise ValueError('not of memory')
