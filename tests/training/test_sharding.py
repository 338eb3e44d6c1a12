"""Compare sharded training on eight virtual devices, in a separate process, with one device."""

import collections
import importlib
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AbstractMesh
from ml_collections import ConfigDict

from amuse_jax.errors import StageError
from amuse_jax.models.amuse import Amuse, AmuseConfig, Phrases
from amuse_jax.models.summary import BERT_WORDS
from amuse_jax.training import sharding, state
from amuse_jax.training.peers import summary
from amuse_jax.training.pretrain import stage as pretrain
from configs import v1

HERE = Path(__file__).parent
TABLE = HERE / 'v1_sharding.txt'
VIDEOS, QUESTIONS, WORDS = 8, 2, 6  # of mesh_steps.py
ONE, MESHES = '1x1x1', ('8x1x1', '1x8x1', '1x1x8', '2x2x2')
ADAM_EPSILON = 1e-8
COLLECTIVE = re.compile(
    r'= (.+?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-\w+)(?:-start)?\('
)


def step_on(model, meshes, folder):
    """Run mesh_steps.py on eight virtual devices."""
    environment = {
        **os.environ,
        'PYTHONPATH': str(HERE.parents[1]),
        'XLA_FLAGS': f'{os.environ["XLA_FLAGS"]} --xla_force_host_platform_device_count=8',
    }
    command = [sys.executable, HERE / 'mesh_steps.py', folder, model, *meshes]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    return folder


@pytest.fixture(scope='module')
def text(tmp_path_factory):
    return step_on('text', (ONE, *MESHES), tmp_path_factory.mktemp('text'))


@pytest.fixture(scope='module')
def amuse(tmp_path_factory):
    return step_on('amuse', (ONE, *MESHES), tmp_path_factory.mktemp('amuse'))


def check_steps(folder, mesh):
    """Check that a mesh gives the losses and updated parameters of one device, up to rounding.

    Only the order in which numbers are added may differ. Some gradients are zero except for
    rounding, for example those of a key's bias, which does not change the softmax; others cancel by
    chance. Adam turns even such noise into full steps, because its first step is
    g / (|g| + epsilon). The comparison therefore skips elements whose gradient is near epsilon in
    the first step or on average.
    """
    expected, found = (np.load(folder / f'{name}.npz') for name in (ONE, mesh))
    np.testing.assert_allclose(found['losses'], expected['losses'], rtol=1e-5)
    compared = total = 0
    for name in expected.files:
        if f'nu/{name}' in expected.files:
            gradient = np.sqrt(expected[f'nu/{name}'] / (1 - 0.999**5))
            first = np.abs(expected[f'first/{name}'])
            is_clear = np.logical_and(
                *((each == 0) | (each > 10 * ADAM_EPSILON) for each in (gradient, first))
            )
            errors = np.abs(found[name] - expected[name]) * is_clear
            assert errors.max() <= 1e-5 * np.abs(expected[name]).max(), name
            compared, total = compared + is_clear.sum(), total + is_clear.size
    assert compared > 0.98 * total


@pytest.mark.parametrize('mesh', MESHES)
def test_training_on_a_mesh_matches_one_device(text, mesh):
    check_steps(text, mesh)


@pytest.mark.slow
@pytest.mark.parametrize('mesh', MESHES)
def test_training_all_of_amuse_on_a_mesh_matches_one_device(amuse, mesh):
    check_steps(amuse, mesh)


def collectives(folder, mesh):
    """Return (kind, shape) of every array that the compiled step exchanges between devices."""
    return [
        (kind, tuple(int(size) for size in shape.split(',') if size))
        for shapes, kind in COLLECTIVE.findall((folder / f'{mesh}.txt').read_text())
        for shape in re.findall(r'\w+\[([\d,]*)\]', shapes)
    ]


def parameter_shapes(folder):
    """Return the shapes of the trained parameters by name."""
    arrays = np.load(folder / f'{ONE}.npz')
    return {name: arrays[name].shape for name in arrays.files if f'nu/{name}' in arrays.files}


def is_gradient(shape, shapes):
    """Return whether an array of this shape can be a gradient or a sum of the metrics.

    A gradient may belong to a whole parameter or to one layer of a stack, and may be transposed.
    """
    known = {tuple(sorted(part)) for each in shapes for part in (each, each[1:])}
    return tuple(sorted(shape)) in known or math.prod(shape) <= 2


def test_the_data_axis_exchanges_only_gradients(text):
    shapes = set(parameter_shapes(text).values())
    found = collectives(text, '8x1x1')
    assert {kind for kind, _ in found} == {'all-reduce'}
    assert all(is_gradient(shape, shapes) for _, shape in found)


def test_the_fsdp_axis_gathers_every_sharded_parameter_once(text):
    shapes = parameter_shapes(text)
    gathered = sorted(shape for kind, shape in collectives(text, '1x8x1') if kind == 'all-gather')
    assert gathered == sorted(
        shape for name, shape in shapes.items() if 'fsdp' in sharding.spec(name, shape)
    )
    rest = [each for each in collectives(text, '1x8x1') if each[0] != 'all-gather']
    assert sorted(rest) == sorted(collectives(text, '8x1x1'))


def test_the_tensor_axis_exchanges_only_the_outputs_of_the_mlps(text):
    shapes = parameter_shapes(text)
    found = [each for each in collectives(text, '1x1x8') if math.prod(each[1]) > 2]
    tokens = (VIDEOS * QUESTIONS, WORDS, shapes['text.norm.scale'][-1])
    assert found == [('all-reduce', tokens)] * 2  # of the scanned layer: forwards and backwards


def test_a_mixed_mesh_uses_the_collectives_of_its_axes(text):
    kinds = {
        mesh: collections.Counter(kind for kind, _ in collectives(text, mesh)) for mesh in MESHES
    }
    assert set(kinds['2x2x2']) == {'all-gather', 'all-reduce'}
    assert kinds['2x2x2']['all-gather'] == kinds['1x8x1']['all-gather']


@pytest.mark.slow
def test_all_of_amuse_exchanges_gradients_and_no_tokens(amuse):
    trained = sum(math.prod(shape) for shape in parameter_shapes(amuse).values())
    most = 1.5 * trained  # a few are used in several places
    along_data, along_fsdp = (collectives(amuse, mesh) for mesh in ('8x1x1', '1x8x1'))
    assert {kind for kind, _ in along_data} == {'all-reduce'}
    assert sum(math.prod(shape) for _, shape in along_data) < most
    kept = [shape for kind, shape in along_fsdp if kind != 'all-gather']
    assert sum(map(math.prod, kept)) < most
    assert {kind for kind, _ in collectives(amuse, '2x2x2')} == {'all-gather', 'all-reduce'}


def v1_parameters():
    """Return the shapes of all arrays in the universal encoder and Amuse at the paper's size."""
    config = v1.get_config()
    rows = ((0,),), ((True,),)
    phrases = Phrases(BERT_WORDS, rows, rows, rows, (True,))
    sizes = AmuseConfig.from_settings(config)
    amuse = nnx.eval_shape(lambda: Amuse(sizes, phrases, rngs=nnx.Rngs(0)))
    universal = nnx.eval_shape(lambda: pretrain.build(config, nnx.Rngs(0)))
    parts = {}
    for model in (universal, amuse):
        _, params, frozen = state.split(model, '.')
        parts |= params | frozen
    return parts


def format_line(name, array):
    spec = sharding.spec(name, array.shape)
    axes = ' '.join(axis or '-' for axis in spec) if any(spec) else 'whole'
    return f'{name} {"x".join(map(str, array.shape)) or "scalar"} {axes}'


def peer_parameters():
    """Return the shapes of the parameters of two peers with all kinds of parameters, by name."""
    return {
        f'{name}.{parameter}': array
        for name in ('dgsct', 'lstta')
        for parameter, array in state.flatten(
            summary.abstract(importlib.import_module(f'configs.peers.{name}').get_config())
        )[1].items()
    }


def test_v1_is_sharded_as_in_the_committed_table():
    """Run `python tests/training/test_sharding.py` to rewrite the table; review what changed."""
    expected = dict(line.split(' ', 1) for line in TABLE.read_text().splitlines())
    found = dict(format_line(*item).split(' ', 1) for item in v1_parameters().items())
    assert found == expected


def test_every_pattern_matches_and_every_large_parameter_is_sharded():
    used = set()
    for name, array in (v1_parameters() | peer_parameters()).items():
        first = next(p for p, _ in sharding.PARAMETERS if re.search(p, name))
        used.add(first)
        if array.size > 1_000_000:
            assert any(sharding.spec(name, array.shape)), name
    assert used == {pattern for pattern, _ in sharding.PARAMETERS}


def test_a_name_that_matches_no_pattern_is_an_error():
    with pytest.raises(
        StageError, match='the parameter answer.wheels of shape .3, 4. matches no pattern'
    ):
        sharding.spec('answer.wheels', (3, 4))
    with pytest.raises(StageError, match='matches no pattern'):
        sharding.spec('answer.inner.kernel', (3,))


def test_an_indivisible_shape_is_an_error_that_names_the_parameter():
    mesh = AbstractMesh((1, 5, 2), sharding.AXES)
    arrays = {
        'text.stack.inner.kernel': jax.ShapeDtypeStruct((3, 10, 6), np.float32),
        'text.stack.outer.kernel': jax.ShapeDtypeStruct((3, 6, 12), np.float32),
    }
    with pytest.raises(
        StageError, match='text.stack.outer.kernel .*12 .* over the 5 devices along fsdp'
    ):
        sharding.parameter_shardings(arrays, mesh)
    with pytest.raises(StageError, match='6 videos, which cannot be divided evenly over 5 devices'):
        sharding.local_rows(6, mesh)
    with pytest.raises(StageError, match='8 videos in 4 parts .* expected .* a multiple of 20'):
        sharding.check_parts(8, 4, mesh)
    sharding.check_parts(20, 4, mesh)
    assert [sharding.padded_batch_size(videos, mesh) for videos in (1, 5, 6)] == [5, 5, 10]


@pytest.mark.parametrize(
    ('sizes', 'message'),
    [
        ((-1, -1, 1), '-1 at most once'),
        ((0, 1, 1), 'expected positive sizes'),
        ((-2, 1, 1), 'expected positive sizes'),
        ((2, 1, 1), 'there are 1 devices'),
        ((-1, 1, 2), 'there are 1 devices'),
    ],
)
def test_a_mesh_that_does_not_fit_is_explained(sizes, message):
    with pytest.raises(StageError, match=message):
        sharding.mesh(ConfigDict(dict(zip(sharding.AXES, sizes))))


if __name__ == '__main__':
    TABLE.write_text(''.join(format_line(*item) + '\n' for item in v1_parameters().items()))
