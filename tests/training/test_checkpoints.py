import json
import shutil

import grain
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from hypothesis.extra.numpy import array_shapes, arrays

from amuse_jax.errors import NewerFormat, StageError
from amuse_jax.system import formats
from amuse_jax.training import checkpoints, state

# Orbax leaves other reads unfinished when one of them fails.
pytestmark = pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')

BATCHES = grain.MapDataset.range(100).batch(4)


def iterate(_=None):
    return iter(BATCHES.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)))


def state_at(step):
    params = {'answer.kernel': jnp.full((50, 40), float(step)), 'text.bias': jnp.arange(3.0)}
    return state.init_state(params, state.adam(lambda _: 1e-3), ('loss',), step)


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """A folder with the checkpoints of steps 2 and 3, saved after as many batches."""
    folder = tmp_path_factory.mktemp('saved') / 'checkpoints'
    manager = checkpoints.Checkpoints(folder, keep=2)
    iterator = iterate()
    for step in (1, 2, 3):
        next(iterator)
        manager.save(state_at(step), iterator, {'phase': 0, 'lines': 10 * step})
    manager.close()
    return folder


def restore(folder):
    manager = checkpoints.Checkpoints(folder, keep=2)
    found = manager.restore(state_at(0), iterate)
    manager.close()
    return found


def check(found, step):
    restored, iterator, progress = found
    expected = state_at(step)
    assert jax.tree.structure(restored) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, restored, expected)
    assert next(iterator)[0] == 4 * step
    assert progress == {'phase': 0, 'lines': 10 * step}


def test_the_newest_is_restored_with_iterator_and_progress(saved):
    assert sorted(path.name for path in saved.iterdir()) == ['2', '3']
    check(restore(saved), 3)


def test_an_empty_folder_restores_nothing(tmp_path):
    assert restore(tmp_path / 'none') is None


@pytest.mark.parametrize('damage', ['truncate', 'flip', 'delete'])
@pytest.mark.parametrize('item', ['params', 'rest', 'progress'])
def test_a_damaged_newest_checkpoint_is_renamed_and_skipped(saved, tmp_path, item, damage):
    folder = tmp_path / 'checkpoints'
    shutil.copytree(saved, folder)
    place = {
        'params': 'params/d/*',
        'rest': 'rest/d/*',
        'progress': 'progress/metadata',
    }
    largest = max((folder / '3').glob(place[item]), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    if damage == 'delete':
        largest.unlink()
    elif damage == 'truncate':
        largest.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 16
        largest.write_bytes(content)
    check(restore(folder), 2)
    assert sorted(path.name for path in folder.iterdir()) == ['2', 'damaged-3']


def test_a_second_damaged_checkpoint_of_a_step_replaces_the_first(saved, tmp_path):
    folder = tmp_path / 'checkpoints'
    for number in (1, 2):
        shutil.copytree(saved, folder, dirs_exist_ok=True)
        (folder / '3/progress/metadata').write_text('{' * number)
        check(restore(folder), 2)
    assert sorted(path.name for path in folder.iterdir()) == ['2', 'damaged-3']
    assert (folder / 'damaged-3/progress/metadata').read_text() == '{{'


@pytest.mark.parametrize(('is_lowest', 'expected'), [(False, 0.9), (True, 0.2)])
def test_the_best_score_is_the_highest_or_the_lowest_and_never_nan(tmp_path, is_lowest, expected):
    params = state_at(1).params
    for number, score in enumerate([float('nan'), 0.5, 0.2, float('nan'), 0.9, 0.4]):
        best = checkpoints.Best(tmp_path / 'best', is_lowest)  # as in a run that was killed
        best.save_if_best(score, params, {'step': number})
        best.close()
    record = checkpoints.read_best(tmp_path / 'best', params)[1]
    assert record == {'step': 2 if is_lowest else 4, 'score': expected}


def test_damaged_best_parameters_are_an_error(tmp_path):
    params = state_at(3).params
    best = checkpoints.Best(tmp_path / 'best')
    best.save_if_best(0.5, params, {'step': 3})
    best.close()
    assert checkpoints.read_best(tmp_path / 'best', params)[1] == {'step': 3, 'score': 0.5}
    record = next(tmp_path.glob('best/*/record/metadata'))
    record.write_text(record.read_text().replace('0.5', '0.6'))
    with pytest.raises(StageError, match='does not have the checksum it was saved with'):
        checkpoints.read_best(tmp_path / 'best', params)


def test_all_damaged_is_a_fresh_start(saved, tmp_path):
    folder = tmp_path / 'checkpoints'
    shutil.copytree(saved, folder)
    for path in folder.glob('*/progress/metadata'):
        path.write_text('{')
    assert restore(folder) is None


@hypothesis.given(
    array=arrays(
        st.sampled_from(['float32', 'int32', 'float16']),
        array_shapes(min_dims=0, max_dims=3),
    ),
    data=st.data(),
)
@hypothesis.settings(max_examples=30, deadline=None)
def test_every_change_of_an_element_changes_the_checksum(array, data):
    before = int(checkpoints._checksum(jnp.asarray(array)))
    bits = array.reshape(-1).view(f'u{array.itemsize}')
    index = data.draw(st.integers(0, bits.size - 1))
    bit = data.draw(st.integers(0, 8 * array.itemsize - 1))
    bits[index] ^= np.array(1 << bit, bits.dtype)
    assert (
        int(checkpoints._checksum(jnp.asarray(bits.view(array.dtype).reshape(array.shape))))
        != before
    )


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'int8'])
@pytest.mark.parametrize('shape', [(), (3, 5, 7), (150, 1001), (0,)])
def test_the_host_and_the_devices_compute_the_same_checksum(dtype, shape):
    array = jnp.asarray(np.random.default_rng(0).normal(size=shape) * 50).astype(dtype)
    on_devices = int(checkpoints._checksum_on_devices(array))
    assert int(checkpoints._checksum(array)) == on_devices
    assert int(checkpoints._checksum_on_host(np.asarray(array))) == on_devices


def test_a_checkpoint_of_a_newer_version_is_refused_and_kept(saved, tmp_path, monkeypatch):
    folder, best = tmp_path / 'checkpoints', tmp_path / 'best'
    shutil.copytree(saved, folder)
    state = state_at(4)
    with monkeypatch.context() as newer:
        newer.setattr(formats, 'CHECKPOINT_FORMAT', formats.CHECKPOINT_FORMAT + 1)
        manager = checkpoints.Checkpoints(folder, keep=2)
        manager.save(state, iterate(), {'phase': 0, 'lines': 40})
        manager.close()
        manager = checkpoints.Best(best)
        manager.save_if_best(0.5, state.params, {'step': 4})
        manager.close()
        checkpoints.save_frozen_once(tmp_path / 'frozen', state.params)
    for read in (
        lambda: restore(folder),
        lambda: checkpoints.read_params(folder, state.params),
        lambda: checkpoints.read_best(best, state.params),
        lambda: checkpoints.Best(best),
        lambda: checkpoints.read_frozen(tmp_path / 'frozen', state.params),
        lambda: checkpoints.save_frozen_once(tmp_path / 'frozen', state.params),
    ):
        with pytest.raises(NewerFormat, match=r'has format 3, .* up to 2; update amuse_jax'):
            read()
    assert (folder / '4').is_dir() and (best / '1').is_dir() and (tmp_path / 'frozen').is_dir()


@pytest.mark.parametrize('item', ['progress', 'record'])
def test_a_checkpoint_without_a_format_number_is_read(item, saved, tmp_path):
    template = state_at(0).params
    folder = tmp_path / 'kept'
    if item == 'progress':
        shutil.copytree(saved, folder)
    else:
        best = checkpoints.Best(folder)
        best.save_if_best(0.5, state_at(3).params, {'step': 3})
        best.close()
    for path in folder.glob(f'*/{item}/metadata'):
        values = json.loads(path.read_text())
        assert values.pop('format') == formats.CHECKPOINT_FORMAT
        if item == 'record':
            del values['digest']  # added in a later version
        path.write_text(json.dumps(values))
    if item == 'progress':
        check(restore(folder), 3)
    else:
        assert checkpoints.read_best(folder, template)[1] == {'step': 3, 'score': 0.5}


def test_best_keeps_the_highest_score_across_restarts(tmp_path):
    template = state_at(0).params
    for scores, expected in (((0.5, 0.7, 0.6), 2), ((0.7, 0.65), 2), ((0.8,), 1)):
        best = checkpoints.Best(tmp_path / 'best')
        for index, score in enumerate(scores, 1):
            best.save_if_best(score, state_at(index).params, {'step': index})
        best.close()
        params, record = checkpoints.read_best(tmp_path / 'best', template)
        assert record['step'] == expected
        assert float(params['answer.kernel'][0, 0]) == expected
    assert record['score'] == 0.8


def test_reading_nothing_or_another_shape_is_explained(saved, tmp_path):
    with pytest.raises(StageError, match='does not exist'):
        checkpoints.read_best(tmp_path / 'train' / 'best', {})
    other = {'answer.kernel': jnp.zeros((3, 3)), 'text.bias': jnp.arange(3.0)}
    with pytest.raises(StageError, match='cannot be read into the configured model'):
        checkpoints.read_params(saved, other)


def test_frozen_arrays_are_saved_once(tmp_path):
    first = {'tower': jnp.arange(4.0)}
    assert checkpoints.save_frozen_once(tmp_path / 'frozen', first) is first
    again = checkpoints.save_frozen_once(tmp_path / 'frozen', {'tower': jnp.zeros(4)})
    np.testing.assert_array_equal(again['tower'], first['tower'])
    shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, first)
    read = checkpoints.read_frozen(tmp_path / 'frozen', shapes)
    np.testing.assert_array_equal(read['tower'], first['tower'])
