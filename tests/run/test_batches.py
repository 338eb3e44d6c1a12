"""Batch sizes per device, and what a run remembers of them."""

import pytest

from amuse_jax.errors import StageError
from amuse_jax.run import batches
from configs import v1


def per_device(train, pretrain=0, **mesh):
    config = v1.get_config()
    config.train.batch_per_device, config.pretrain.batch_per_device = train, pretrain
    config.mesh.update(mesh)
    return config


def never():
    raise AssertionError('the devices need not be counted')


def test_a_size_per_device_equals_a_size_that_is_given(tmp_path):
    resolved, _ = batches.resolve(per_device(2, 1, fsdp=4), tmp_path, lambda: 32)
    given = v1.get_config()
    given.mesh.fsdp = 4
    given.train.batch_size, given.pretrain.batch_size = 64, 32
    assert resolved == given
    # The devices of `tensor` share no videos.
    resolved, _ = batches.resolve(per_device(2, tensor=4), tmp_path / 'other', lambda: 32)
    assert (resolved.train.batch_size, resolved.pretrain.batch_size) == (16, 8)


def test_without_sizes_per_device_nothing_is_counted_or_written(tmp_path):
    config = v1.get_config()
    assert batches.resolve(config, tmp_path, never) == (config, {})
    batches.store(tmp_path, {})
    assert not list(tmp_path.iterdir())


def test_a_run_that_has_begun_keeps_its_size_on_other_devices(tmp_path):
    first, sizes = batches.resolve(per_device(1), tmp_path, lambda: 32)
    batches.store(tmp_path, sizes)
    (tmp_path / 'train').mkdir()
    later, _ = batches.resolve(per_device(1), tmp_path, never)
    assert first == later and later.train.batch_size == 32
    changed, _ = batches.resolve(per_device(2), tmp_path, lambda: 8)
    assert changed.train.batch_size == 16


def test_a_run_that_has_not_begun_counts_again(tmp_path):
    _, sizes = batches.resolve(per_device(1), tmp_path, lambda: 8)
    batches.store(tmp_path, sizes)
    config, _ = batches.resolve(per_device(1), tmp_path, lambda: 32)
    assert config.train.batch_size == 32


@pytest.mark.parametrize('text', ['{', '[]', '{"train": {"per_device": 1}}', '{"train": 3}'])
def test_a_damaged_file_is_one_sentence(tmp_path, text):
    (tmp_path / batches.FILE).write_text(text)
    with pytest.raises(StageError, match=r'batches.json does not hold the batch sizes'):
        batches.resolve(per_device(1), tmp_path, lambda: 8)
