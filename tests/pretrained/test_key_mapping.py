import numpy as np
import pytest
from flax import nnx

from amuse_jax.pretrained import key_mapping
from amuse_jax.pretrained.key_mapping import ConversionError, Row, Table


class Model(nnx.Module):
    def __init__(self):
        self.stack = nnx.vmap(lambda rngs: nnx.Linear(4, 6, rngs=rngs))(nnx.Rngs(0).split(2))
        self.head = nnx.Linear(6, 3, rngs=nnx.Rngs(0))


BLOCK = key_mapping.dense(['query', 'key'], 'stack')
RULES = [
    *key_mapping.rules(BLOCK, 'blocks.{}.', '', depth=2),
    *key_mapping.rules(key_mapping.dense('classifier', 'head')),
]
TABLE = Table(tuple(RULES), {r'.*\.index': 'follows from the window'})


@pytest.fixture
def source():
    rng = np.random.default_rng(0)
    shapes = {'classifier.weight': (3, 6), 'classifier.bias': (3,)}
    for block in range(2):
        for part in ('query', 'key'):
            shapes[f'blocks.{block}.{part}.weight'] = (3, 4)
            shapes[f'blocks.{block}.{part}.bias'] = (3,)
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return arrays | {'blocks.0.index': np.arange(4)}


@pytest.fixture(scope='module')
def model():
    return nnx.eval_shape(Model)


def test_layers_are_transposed_joined_and_stacked(model, source):
    filled = key_mapping.fill(model, source, TABLE)
    kernel = filled.stack.kernel[...]
    np.testing.assert_array_equal(kernel[1, :, 3:], source['blocks.1.key.weight'].T)
    np.testing.assert_array_equal(filled.stack.bias[0, :3], source['blocks.0.query.bias'])
    np.testing.assert_array_equal(filled.head.kernel[...], source['classifier.weight'].T)


def test_one_error_lists_every_difference(model, source):
    del source['blocks.0.key.bias']
    source['classifier.weight'] = np.zeros((5, 6), np.float32)
    source['classifier.bias'] = np.zeros(3, np.int64)
    source['extra.scale'] = np.zeros(7, np.float32)
    with pytest.raises(ConversionError) as error:
        key_mapping.fill(model, source, TABLE)
    message = str(error.value)
    assert 'blocks.0.key.bias: not in the checkpoint, needed for stack.bias' in message
    assert 'head.kernel: (6, 5) in the checkpoint, (6, 3) expected' in message
    assert 'head.bias: int64 in the checkpoint' in message
    assert 'extra.scale (7,): in the checkpoint, neither used nor ignored' in message
    assert '(4 differences)' in message


def test_arrays_that_cannot_be_joined_are_reported(model, source):
    source['blocks.1.key.weight'] = np.zeros((3, 5), np.float32)
    with pytest.raises(ConversionError, match='stack.kernel.*do not fit'):
        key_mapping.fill(model, source, TABLE)


def test_a_table_that_misses_a_parameter_or_uses_a_name_twice_is_refused(model, source):
    without_head = Table(TABLE.rules[:2], TABLE.ignored | {'classifier.*': 'no head wanted'})
    with pytest.raises(ConversionError, match='head.bias: not filled'):
        key_mapping.fill(model, source, without_head)
    twice = Row(('classifier.bias',), 'head.bias', key_mapping.same)
    with pytest.raises(ConversionError, match='classifier.bias: used twice'):
        key_mapping.fill(model, source, Table((*RULES, *key_mapping.rules([twice])), TABLE.ignored))


def test_patches_become_rows_of_a_matrix():
    kernel = np.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4)  # out, in, height, width
    matrix = key_mapping.patches([kernel])
    assert matrix.shape == (48, 2)
    assert matrix[(1 * 4 + 2) * 3 + 1, 0] == kernel[0, 1, 1, 2]
