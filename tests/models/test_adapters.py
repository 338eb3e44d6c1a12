"""Eq. 1-3 compared with plain NumPy loops, and padding that must not change results."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amuse_jax.models import building, platform
from amuse_jax.models.adapters import AdapterConfig, Adapters, relu
from amuse_jax.models.attention import multihead

VIDEOS, QUESTIONS, SEGMENTS, WORDS = 2, 3, 2, 4
TOKENS = {'visual': 3, 'audio': 2}
WIDTHS = {'visual': 12, 'audio': 10, 'text': 8}


@functools.cache
def make_adapters(heads, is_open=True):
    config = AdapterConfig(**WIDTHS, width=8, heads=heads, mlp_width=16)
    adapters = building.build(lambda rngs: Adapters(config, rngs=rngs), seed=0)
    if is_open:
        for name in WIDTHS:
            out = getattr(adapters, name).project_out
            out.kernel[...] = jax.random.normal(jax.random.key(1), out.kernel.shape)
    return adapters


@jax.jit
def exchange(adapters, inputs):
    return adapters(*inputs)


def draw_inputs(seed=0, questions=QUESTIONS):
    rng = np.random.default_rng(seed)
    visual, audio = (
        rng.normal(size=(VIDEOS, questions, SEGMENTS, TOKENS[m], WIDTHS[m])).astype(np.float32)
        for m in ('visual', 'audio')
    )
    text = rng.normal(size=(VIDEOS, QUESTIONS, WORDS, WIDTHS['text'])).astype(np.float32)
    word_mask = np.array([[[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]]] * VIDEOS, bool)
    segment_mask = np.array([[True, True], [True, False]])
    return visual, audio, text, word_mask, segment_mask


def softmax(x):
    x = np.exp(x - x.max())
    return x / x.sum()


def linear(layer, x):
    return x @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])


def eq1(queries, keys, values, heads):
    """A = softmax(Q K^T / sqrt(d)) V, head by head and query by query."""
    size = queries.shape[1] // heads
    attended = np.zeros_like(queries)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        for i, query in enumerate(queries):
            weights = softmax(np.array([query[part] @ key[part] for key in keys]) / np.sqrt(size))
            attended[i, part] = sum(w * value[part] for w, value in zip(weights, values))
    return attended


def eq2(adapter, source, attended):
    """Z = relu(A W_1 + b_1) W_2 + b_2."""
    hidden = np.maximum(linear(adapter.hidden[source], attended), 0)
    return linear(adapter.attended[source], hidden)


def eq3(adapter, tokens, own, outputs, heads):
    """Each token attends over itself and its attended outputs; that is projected and added."""
    fused = []
    for i, token in enumerate(tokens):
        candidates = np.stack([own[i], *(z[i] for z in outputs)])
        query = linear(adapter.fuse_query, own[i][None])
        keys, values = np.split(linear(adapter.fuse_key_value, candidates), 2, axis=-1)
        mixed = eq1(query, keys, values, heads)
        fused.append(token + linear(adapter.project_out, mixed)[0])
    return np.stack(fused)


def project(adapter, tokens):
    norm = adapter.norm
    x = (tokens - tokens.mean(-1, keepdims=True)) / np.sqrt(tokens.var(-1, keepdims=True) + 1e-5)
    x = x * np.asarray(norm.scale[...]) + np.asarray(norm.bias[...])
    return np.split(linear(adapter.project_in, x), 4, axis=-1)


def plain(adapters, heads, visual, audio, text, word_mask, segment_mask):
    """All six pairs, one question and one segment at a time."""
    results = [np.zeros_like(x) for x in (visual, audio, text)]
    parts = {'visual': adapters.visual, 'audio': adapters.audio, 'text': adapters.text}
    for v, q in np.ndindex(VIDEOS, QUESTIONS):
        words = project(parts['text'], text[v, q])
        known = [x[word_mask[v, q]] for x in words]
        existing = {'visual': [], 'audio': []}
        for t in range(SEGMENTS):
            inputs = {'visual': visual[v, q, t], 'audio': audio[v, q, t]}
            projected = {m: project(parts[m], x) for m, x in inputs.items()}
            for index, (m, other) in enumerate((('visual', 'audio'), ('audio', 'visual'))):
                query, _, _, own = projected[m]
                outputs = [
                    eq2(parts[m], source, eq1(query, keys, values, heads))
                    for source, (_, keys, values, _) in enumerate((projected[other], known))
                ]
                results[index][v, q, t] = eq3(parts[m], inputs[m], own, outputs, heads)
                if segment_mask[v, t]:
                    existing[m].append(projected[m])
        outputs = []
        for source, m in enumerate(('visual', 'audio')):
            keys, values = (np.concatenate([x[i] for x in existing[m]]) for i in (1, 2))
            outputs.append(eq2(parts['text'], source, eq1(words[0], keys, values, heads)))
        results[2][v, q] = eq3(parts['text'], text[v, q], words[3], outputs, heads)
    return results


@pytest.mark.parametrize('heads', [1, 4])
def test_eq_1_attends_as_written(heads):
    rng = np.random.default_rng(0)
    query, key, value = (rng.normal(size=(n, 8)).astype(np.float32) for n in (3, 5, 5))
    attended = multihead.attend_heads(*map(jnp.asarray, (query, key, value)), heads)
    np.testing.assert_allclose(attended, eq1(query, key, value, heads), atol=1e-5)


@pytest.mark.parametrize('target', ['cpu', 'tpu'])
@pytest.mark.parametrize('heads', [1, 4])
def test_eq_2_and_3_transform_and_fuse_as_written(heads, target):
    adapter = make_adapters(heads).audio
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(4, WIDTHS['audio'])).astype(np.float32)
    own, *attended = rng.normal(size=(3, 4, 8)).astype(np.float32)
    outputs = [eq2(adapter, source, x) for source, x in enumerate(attended)]
    with platform.compiling_for(target):
        fused = adapter.weights().fuse(*map(jnp.asarray, (tokens, own, *attended)))
    np.testing.assert_allclose(fused, eq3(adapter, tokens, own, outputs, heads), atol=1e-5)


def test_the_gradient_of_relu_is_that_of_jax():
    x = jnp.asarray([-2.0, -0.0, 0.0, 3.0])
    for ours, theirs in zip(jax.vjp(relu, x), jax.vjp(jax.nn.relu, x)):
        if callable(ours):
            ours, theirs = ours(x + 1)[0], theirs(x + 1)[0]
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize('heads', [1, 4])
def test_all_six_pairs_equal_plain_loops(heads):
    adapters, inputs = make_adapters(heads), draw_inputs()
    for result, expected in zip(exchange(adapters, inputs), plain(adapters, heads, *inputs)):
        np.testing.assert_allclose(result, expected, atol=2e-5)


def test_tokens_shared_by_questions_equal_tokens_repeated_for_each():
    adapters = make_adapters(4)
    visual, audio, *rest = draw_inputs(questions=1)
    shared = exchange(adapters, (visual, audio, *rest))
    visual, audio = (np.repeat(x, QUESTIONS, axis=1) for x in (visual, audio))
    repeated = exchange(adapters, (visual, audio, *rest))
    for one, other in zip(shared, repeated):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_fresh_adapters_change_nothing():
    adapters = make_adapters(4, is_open=False)
    inputs = draw_inputs()
    for result, given in zip(exchange(adapters, inputs), inputs):
        np.testing.assert_array_equal(result, given)


def test_padding_has_no_influence():
    adapters = make_adapters(4)
    visual, audio, text, word_mask, segment_mask = draw_inputs()
    before = exchange(adapters, (visual, audio, text, word_mask, segment_mask))
    visual[1, :, 1], audio[1, :, 1] = 7.0, -3.0
    text = np.where(word_mask[..., None], text, 5.0)
    after = exchange(adapters, (visual, audio, text, word_mask, segment_mask))
    for one, other in zip(before[:2], after[:2]):
        valid = segment_mask[:, None, :, None, None]
        np.testing.assert_allclose(np.where(valid, one, 0), np.where(valid, other, 0), atol=1e-5)
    valid = word_mask[..., None]
    np.testing.assert_allclose(
        np.where(valid, before[2], 0), np.where(valid, after[2], 0), atol=1e-5
    )
