"""The mesh is compared with batches and parameters before anything runs."""

import pytest

from amuse_jax.errors import StageError
from amuse_jax.training import fitting
from configs import demo, v1


def check(config, devices, stages=('pretrain', 'train'), is_alone=True):
    fitting.check(config, stages, devices, is_alone=is_alone)


def test_v1_fits_eight_devices_and_no_more():
    config = v1.get_config()
    check(config, 1)
    check(config, 8)
    with pytest.raises(StageError, match='config.pretrain.batch_size is 8, .* over 16 devices'):
        check(config, 16)
    with pytest.raises(StageError, match='set --config.train.batch_per_device=1 or more'):
        check(config, 16, ['train'])
    check(config, 16, ['prepare', 'evaluate'])
    config.mesh.tensor = 2  # these devices share no videos
    check(config, 16)


def test_parts_of_a_batch_are_shared_too():
    config = v1.get_config()
    config.train.update(batch_size=256, parts=4)
    config.pretrain.batch_size = 64
    check(config, 64)
    config.train.parts = 8
    with pytest.raises(StageError, match='256 videos in 8 parts'):
        check(config, 64)


def test_a_mesh_of_another_size_is_refused():
    config = v1.get_config()
    config.mesh.data = 4
    check(config, 8)  # one process may leave devices unused
    with pytest.raises(StageError, match='config.mesh is data=4, .* there are 8 devices'):
        check(config, 8, is_alone=False)


def test_a_parameter_that_cannot_be_shared_is_named():
    config = demo.get_config()
    config.mesh.update(data=1, fsdp=1, tensor=2)
    check(config, 2)
    config.mesh.tensor = 3
    with pytest.raises(StageError, match='the parameter .* set --config.mesh.tensor to a divisor'):
        check(config, 3)
