"""The kernel for TPUs in interpret mode, compared with the plain path."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.experimental.pallas import tpu as pltpu
from jax.extend import core

from amuse_jax.models import flops, platform, windows
from amuse_jax.models.adapters import AdapterConfig, Adapters
from amuse_jax.models.attention import tpu
from amuse_jax.models.htsat import HTSATBlock
from amuse_jax.models.swin_v2 import SwinV2Block
from amuse_jax.models.window_map import WindowMap

CASES = {  # map, window, heads, channels of a head, whether queries and keys are unit vectors
    'one window, four heads in a row of 128': ((4, 4), 4, 4, 32, True),
    'two rows': ((4, 4), 4, 8, 32, True),
    'heads across rows, several windows': ((8, 4), 4, 16, 24, False),
    'fewer channels than a row': ((4, 8), 4, 3, 8, True),
    'a padded map': ((6, 4), 4, 2, 8, False),
    'tokens that fill no rows of 8': ((6, 6), 12, 2, 32, True),
}


def inputs(case, dtype=np.float32):
    size, window, heads, channels, cosine = CASES[case]
    random = np.random.default_rng(0)
    window_map = WindowMap.of(size, window)
    tokens = 2, window_map.padded[0] * window_map.padded[1], heads * channels
    arrays = [jnp.asarray(random.normal(size=tokens), dtype) for _ in range(4)]
    bias = random.normal(size=(heads, window_map.tokens, window_map.tokens)).astype(np.float32)
    scale = random.uniform(0.2, 4, heads).astype(np.float32)
    if not cosine:
        scale *= channels**-0.5
    *attended, gradient = arrays
    return (*attended, bias, scale), gradient, window_map, cosine


def run(case, backend, dtype=np.float32, trained=5):
    """Return attention, and its gradient with respect to the first `trained` arguments."""
    arguments, gradient, window_map, cosine = inputs(case, dtype)

    def attend(*arguments):
        return windows.attention(*arguments, window_map, cosine)

    def both(first, rest):
        output, pull = jax.vjp(lambda *first: attend(*first, *rest), *first)
        return output, pull(gradient)

    with platform.compiling_for(backend), pltpu.force_tpu_interpret_mode():
        return jax.jit(both)(arguments[:trained], arguments[trained:])


@pytest.mark.parametrize('case', CASES)
def test_the_kernel_computes_attention_and_its_gradients(case):
    output, gradients = run(case, 'tpu')
    expected, expected_gradients = run(case, 'cpu')
    np.testing.assert_allclose(output, expected, atol=2e-6)
    for found, wanted in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(found, wanted, atol=2e-5 * float(np.abs(wanted).max()) + 1e-7)


MASKED_CASES = {  # images, windows, queries, keys, heads, channels of a head
    'several heads in a tile': (3, 1, 16, 32, 4, 64),
    'queries that fill no registers': (2, 2, 9, 20, 2, 8),
    'several tiles per head': (2, 1, 144, 8, 2, 64),
    'many keys': (1, 1, 8, 300, 3, 8),
}


def plain(query, key, value, scale, bias, mask):
    """Return the attention of `tpu.attend`, and zeros for queries without keys."""
    *lead, tokens, width = query.shape
    heads = len(scale)
    query, key, value = (x.reshape(*x.shape[:3], heads, -1) for x in (query, key, value))
    scores = jnp.einsum('bwqhc,bwkhc->bwhqk', query, key) * scale[:, None, None] + bias
    allowed = mask[:, :, None, None] & (bias > np.finfo(np.float32).min)
    scores = jnp.where(allowed, scores, -1e9)
    weights = jnp.where(allowed, jax.nn.softmax(scores, axis=-1), 0)
    return jnp.einsum('bwhqk,bwkhc->bwqhc', weights, value).reshape(*lead, tokens, width)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize('case', MASKED_CASES)
def test_a_query_without_keys_gets_zeros_and_gives_no_gradients(case, dtype):
    images, places, tokens, keys, heads, channels = MASKED_CASES[case]
    random = np.random.default_rng(3)
    sizes = tokens, keys, keys, tokens
    shapes = [(images, places, size, heads * channels) for size in sizes]
    *arrays, gradient = (jnp.asarray(random.normal(size=shape), dtype) for shape in shapes)
    scale = (channels**-0.5 * random.uniform(1, 2, heads)).astype(np.float32)
    bias = random.normal(size=(1, heads, tokens, keys)).astype(np.float32)
    bias[:, 0, 1] = np.finfo(np.float32).min  # one head's second query has no keys
    mask = random.uniform(size=(images, places, keys)) < 0.7
    mask[0, 0] = False  # the first window has no keys at all

    def both(attend, arrays):
        attended, pull = jax.vjp(lambda *given: attend(*given, mask), *arrays, scale, bias)
        return attended, *pull(gradient.astype(attended.dtype))

    with pltpu.force_tpu_interpret_mode():
        found = jax.jit(lambda *arrays: both(tpu.attend, arrays))(*arrays)
    expected = both(plain, [x.astype(jnp.float32) for x in arrays])
    output, d_query, d_key, d_value, _, d_bias = found
    assert output.dtype == dtype
    assert not np.any(output[0, 0]) and not np.any(output[:, :, 1, :channels])
    for gradient in (d_query[0, 0], d_query[:, :, 1, :channels], d_key[0, 0], d_value[0, 0]):
        assert not np.any(gradient)
    assert not np.any(d_bias[:, 0, 1])
    limit = 2e-5 if dtype == jnp.float32 else 2e-2
    for kernel, wanted in zip(found, expected, strict=True):
        largest = float(np.abs(wanted).max())
        np.testing.assert_allclose(kernel.astype(jnp.float32), wanted, atol=limit * largest)


def kernels(jaxpr):
    for equation in jaxpr.eqns:
        if equation.primitive.name == 'pallas_call':
            yield equation
        else:
            for inner in core.jaxprs_in_params(equation.params):
                yield from kernels(inner)


def test_a_frozen_bias_has_no_gradient_output():
    case = 'two rows'
    arguments, gradient, window_map, _ = inputs(case)

    def outputs(trained):
        with platform.compiling_for('tpu'):
            program = jax.make_jaxpr(
                lambda first, rest: jax.vjp(
                    lambda *first: windows.attention(*first, *rest, window_map), *first
                )[1](gradient)
            )(arguments[:trained], arguments[trained:])
        *_, backward = kernels(program.jaxpr)
        return len(backward.outvars)

    assert (outputs(3), outputs(5)) == (3, 5)
    _, gradients = run(case, 'tpu', trained=3)
    _, expected = run(case, 'cpu', trained=3)
    for found, wanted in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=2e-6)


def test_bfloat16_is_as_exact_as_the_plain_path():
    exact, exact_gradients = run('two rows', 'cpu')
    errors = {}
    for backend in ('cpu', 'tpu'):
        output, gradients = run('two rows', backend, jnp.bfloat16)
        assert output.dtype == jnp.bfloat16
        errors[backend] = [
            float(np.abs(np.asarray(found, np.float32) - wanted).max() / np.abs(wanted).max())
            for found, wanted in zip((output, *gradients), (exact, *exact_gradients))
        ]
    for kernel, plain in zip(errors['tpu'], errors['cpu']):
        assert kernel < max(0.01, 1.5 * plain)


@pytest.mark.parametrize('shifted', [False, True])
@pytest.mark.parametrize('kind', [SwinV2Block, HTSATBlock])
def test_a_block_is_the_same_with_the_kernel(kind, shifted):
    window_map = WindowMap.of((8, 4), 4)
    more = (0,) if kind is SwinV2Block else ()
    block = kind(16, 2, window_map, *more, 2.0, jnp.float32, nnx.Rngs(0))
    random = np.random.default_rng(1)
    graphdef, state = nnx.split(block)
    state = jax.tree.map(lambda x: x + 0.1 * random.normal(size=x.shape).astype(np.float32), state)
    x = random.normal(size=(2, 32, 16)).astype(np.float32)

    def loss(state, x):
        block = nnx.merge(graphdef, state)
        return jnp.sum(jnp.sin(block(x, block.position_bias(), shifted)))

    found = {}
    for backend in ('cpu', 'tpu'):
        with platform.compiling_for(backend), pltpu.force_tpu_interpret_mode():
            traced = lambda *arguments: loss(*arguments)  # noqa: E731, one trace per platform
            found[backend] = jax.jit(jax.value_and_grad(traced, argnums=(0, 1)))(state, x)
    for kernel, plain in zip(*(jax.tree.leaves(found[name]) for name in ('tpu', 'cpu'))):
        limit = 1e-5 * max(1.0, float(np.abs(plain).max()))
        np.testing.assert_allclose(kernel, plain, atol=limit)


@pytest.mark.parametrize('is_gradient', [False, True])
def test_flops_are_those_of_the_plain_path(is_gradient):
    arguments, gradient, window_map, _ = inputs('two rows')

    def attend(*arguments):
        return windows.attention(*arguments, window_map)

    def both(*arguments):
        output, pull = jax.vjp(attend, *arguments)
        return output, pull(gradient)

    counts = []
    for backend in ('cpu', 'tpu'):
        with platform.compiling_for(backend):
            program = jax.make_jaxpr(both if is_gradient else attend)(*arguments)
        counts.append(flops.count_matmul_flops(program.jaxpr))
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize('questions', [1, pytest.param(3, marks=pytest.mark.slow)])
def test_adapters_are_the_same_with_the_kernel(questions):
    config = AdapterConfig(visual=12, audio=8, text=16, width=32, heads=4, mlp_width=24)
    random = np.random.default_rng(2)
    graphdef, state = nnx.split(Adapters(config, rngs=nnx.Rngs(0)))
    state = jax.tree.map(lambda x: x + 0.1 * random.normal(size=x.shape).astype(np.float32), state)
    shapes = (2, questions, 2, 9, 12), (2, questions, 2, 16, 8), (2, 3, 8, 16)
    tokens = [random.normal(size=shape).astype(np.float32) for shape in shapes]
    word_mask = np.arange(8) < random.integers(1, 9, (2, 3, 1))
    segment_mask = np.array([[True, True], [True, False]])

    def loss(state, *tokens):
        found = nnx.merge(graphdef, state)(*tokens, word_mask, segment_mask)
        return sum(jnp.sum(jnp.sin(x)) for x in found)

    found = {}
    for backend in ('cpu', 'tpu'):
        with platform.compiling_for(backend), pltpu.force_tpu_interpret_mode():
            traced = lambda *arguments: loss(*arguments)  # noqa: E731, one trace per platform
            found[backend] = jax.jit(jax.value_and_grad(traced, (0, 1, 2, 3)))(state, *tokens)
    for kernel, plain in zip(*(jax.tree.leaves(found[name]) for name in ('tpu', 'cpu'))):
        np.testing.assert_allclose(kernel, plain, atol=1e-5 * max(1.0, float(np.abs(plain).max())))
