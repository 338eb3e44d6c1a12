import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from amuse_jax.models import building
from amuse_jax.models.answer import AnswerConfig, AnswerHead, StreamAttention, Tokens
from amuse_jax.models.streams import Stream

VIDEOS, QUESTIONS, PROBES, WIDTH, HEADS = 2, 3, 2, 8, 2
SHARED, OWN = 5, 3  # tokens: streams 0 and 1 are the video's, stream 2 depends on the question
MEMBER = np.eye(3)[[0, 0, 1, 1, 1, 2, 2, 2]].astype(np.float32)
CONFIG = AnswerConfig(width=WIDTH, heads=HEADS, layers=2, mlp_width=16, probes=3, dropout=0.5)


def draw_tokens(rng):
    mask = np.ones((VIDEOS, SHARED + OWN), bool)
    mask[0, 1], mask[1, 2:5] = False, False  # a token, and the whole of stream 1
    return Tokens(
        shared=rng.normal(size=(VIDEOS, SHARED, WIDTH)).astype(np.float32),
        own=rng.normal(size=(VIDEOS, QUESTIONS, OWN, WIDTH)).astype(np.float32),
        mask=mask,
        member=MEMBER,
    )


@functools.cache
def make_attention():
    def make(rngs):
        attention = StreamAttention(CONFIG, 3, rngs=rngs, dtype=jnp.float32)
        attention.sink[...] = jnp.array([0.3, -0.5])
        return attention

    return building.build(make, seed=0)


@jax.jit
def attend_to_streams(attention, probes, tokens):
    return attention(probes, tokens)


def linear(layer, x):
    return x @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])


def written_out(attention, probe, tokens, mask):
    """Compute StreamAttention for one probe [d] and its tokens [n, d], head by head."""
    x = (probe - probe.mean()) / np.sqrt(probe.var() + 1e-5)
    size = WIDTH // HEADS
    query, prefer = linear(attention.query, x), linear(attention.prefer, x)
    fused, amounts, gates = np.zeros(WIDTH), np.zeros((3, HEADS)), np.zeros((3, HEADS))
    for h in range(HEADS):
        part = slice(h * size, (h + 1) * size)
        found = np.zeros((3, size))
        for s in range(3):
            inside = [tokens[i] for i in range(len(tokens)) if MEMBER[i, s] and mask[i]]
            keys = [linear(attention.key, token)[part] for token in inside]
            values = [linear(attention.value, token)[part] for token in inside]
            powers = [np.exp(query[part] @ key / np.sqrt(size)) for key in keys]
            total = np.exp(float(attention.sink[h])) + sum(powers)
            amounts[s, h] = np.log(total)
            found[s] = sum((p / total * v for p, v in zip(powers, values)), np.zeros(size))
            gates[s, h] = np.exp(prefer[h * 3 + s] + float(attention.found[h]) * amounts[s, h])
        gates[:, h] /= gates[:, h].sum()
        fused[part] = gates[:, h] @ found
    amount = (gates * amounts).T.reshape(-1)  # heads outside, as `join_heads` leaves them
    return linear(attention.out, fused) + linear(attention.amount, amount), gates.mean(-1)


def test_attention_equals_its_formulas():
    rng = np.random.default_rng(0)
    tokens, attention = draw_tokens(rng), make_attention()
    probes = rng.normal(size=(VIDEOS, QUESTIONS, PROBES, WIDTH)).astype(np.float32)
    found, weights = attend_to_streams(attention, probes, tokens)
    for v, q, m in np.ndindex(VIDEOS, QUESTIONS, PROBES):
        own = np.concatenate([tokens.shared[v], tokens.own[v, q]])
        expected, importance = written_out(attention, probes[v, q, m], own, tokens.mask[v])
        np.testing.assert_allclose(found[v, q, m], expected, atol=1e-5)
        if m == 0:
            np.testing.assert_allclose(weights.importance[v, q], importance, atol=1e-5)


def test_weights_sum_to_one_over_streams_and_inside_each():
    rng = np.random.default_rng(0)
    tokens = draw_tokens(rng)
    probes = rng.normal(size=(VIDEOS, QUESTIONS, PROBES, WIDTH)).astype(np.float32)
    _, weights = attend_to_streams(make_attention(), probes, tokens)
    np.testing.assert_allclose(weights.importance.sum(-1), 1, atol=1e-6)
    inside = np.asarray(weights.tokens) @ MEMBER
    expected = np.ones_like(inside)
    expected[1, :, 1] = 0  # no token there
    np.testing.assert_allclose(inside, expected, atol=1e-5)


def test_padding_has_no_influence():
    rng = np.random.default_rng(0)
    tokens = draw_tokens(rng)
    probes = rng.normal(size=(VIDEOS, QUESTIONS, PROBES, WIDTH)).astype(np.float32)
    before = attend_to_streams(make_attention(), probes, tokens)
    shared = np.where(tokens.mask[:, :SHARED, None], tokens.shared, 30.0).astype(np.float32)
    after = attend_to_streams(make_attention(), probes, tokens.replace(shared=shared))
    for one, other in zip(jax.tree.leaves(before), jax.tree.leaves(after)):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize('shift', [-300.0, 300.0])
def test_extreme_scores_stay_finite(shift):
    rng = np.random.default_rng(0)
    tokens = draw_tokens(rng)
    probes = rng.normal(size=(VIDEOS, QUESTIONS, PROBES, WIDTH)).astype(np.float32)

    def total(attention):
        attention.sink[...] = jnp.full((HEADS,), shift)
        found, weights = attention(probes, tokens)
        return found.sum() + jnp.square(weights.importance).sum()

    value, grads = jax.jit(jax.value_and_grad(total))(make_attention())
    assert jnp.isfinite(value)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


@functools.cache
def make_head(dropout=0.5):
    config = AnswerConfig(width=32, heads=2, layers=2, mlp_width=64, probes=3, dropout=dropout)

    def make(rngs):
        return AnswerHead(config, 16, 4, 2, rngs=rngs)

    return building.build(make, seed=0)


def draw_question(rng, videos=2):
    text, words = rng.normal(size=(2, videos, 1, 4, 16)).astype(np.float32)
    return text, words, np.ones((videos, 1, 4), bool)


def draw_streams(rng, videos=2):
    return tuple(
        Stream(
            tokens=rng.normal(size=(videos, 1, n, 32)).astype(np.float32),
            mask=np.ones((videos, n), bool),
            time=np.ones((videos, n, 1), np.float32),
        )
        for n in (3, 5)
    )


def test_a_word_is_linked_to_the_things_it_names_and_to_no_other():
    rng = np.random.default_rng(0)
    head = make_head()
    moments, things = draw_streams(rng)
    table = rng.normal(size=(4, 32)).astype(np.float32)
    table[3] = 0  # all things together
    things = things.replace(names=jnp.asarray(table))
    words = rng.normal(size=(2, 1, 5, 32)).astype(np.float32)  # none of these names anything
    words[0, 0, 1], words[1, 0, 4] = 3 * table[2], 0.5 * table[0]
    words[1, 0, 2] = table[1] + table[2]  # half alike
    linked = head.link_words(jnp.asarray(words), (moments, things))
    expected = np.zeros((2, 1, 5, 32), np.float32)
    kernel, bias = np.asarray(head.link.kernel[...]), np.asarray(head.link.bias[...])
    values = np.asarray(things.tokens)[:, 0, 1:] @ kernel + bias  # the last four tokens
    for v, q, n in np.ndindex(2, 1, 5):
        for i in range(4):
            lengths = np.linalg.norm(words[v, q, n]) * np.linalg.norm(table[i]) + 1e-9
            cosine = words[v, q, n] @ table[i] / lengths
            expected[v, q, n] += values[v, i] / (1 + np.exp(-20 * (cosine - 0.75)))
    np.testing.assert_allclose(linked, expected, atol=1e-4)
    assert np.abs(expected[0, 0, 0]).max() < 1e-2 < np.abs(expected[0, 0, 1]).max()
    assert head.link_words(jnp.asarray(words), (moments, moments)) == 0


def test_dropout_only_with_random_keys():
    rng = np.random.default_rng(0)
    head, question, streams = make_head(), draw_question(rng), draw_streams(rng)
    names = rng.normal(size=(4, 32)).astype(np.float32)

    @jax.jit
    def run(head, key):
        rngs = None if key is None else nnx.Rngs(key)
        return head(*question, streams, names, rngs)[0]

    plain, again = run(head, None), run(head, None)
    one, other = run(head, jax.random.key(0)), run(head, jax.random.key(1))
    np.testing.assert_array_equal(plain, again)
    assert np.abs(one - other).max() > 1e-3


@pytest.mark.slow
def test_head_learns_to_count_and_to_find():
    """64 videos show up to three things of two kinds; each question asks to count one kind."""
    rng = np.random.default_rng(0)
    table = rng.normal(size=(2, 16)).astype(np.float32)  # what the two kinds are called
    head = make_head(dropout=0.0)
    names = np.asarray(head.embed_names(jnp.asarray(table)))
    kinds = rng.integers(0, 3, (64, 3))  # 2: nothing
    asked = rng.integers(0, 2, 64)
    labels = (kinds == asked[:, None]).sum(1)
    things = np.where((kinds < 2)[..., None], names[np.minimum(kinds, 1)], 0)[:, None]
    things = Stream(things.astype(np.float32), kinds < 2, np.ones((64, 3, 1), np.float32))
    text, words, mask = draw_question(rng, 64)
    words[:, 0, 2] = text[:, 0, 2] = table[asked]
    streams = (draw_streams(rng, 64)[0], things)
    answers = jnp.asarray(rng.normal(size=(4, 32)), jnp.float32)
    graphdef, params = nnx.split(head)
    optimizer = optax.adam(1e-2)

    def loss(params):
        logits, _, _ = nnx.merge(graphdef, params)(text, words, mask, streams, answers)
        logits = logits[:, 0]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), (logits.argmax(-1) == labels).mean()

    @jax.jit
    def train(params):
        def step(state, _):
            params, opt_state = state
            (_, accuracy), grads = jax.value_and_grad(loss, has_aux=True)(params)
            updates, opt_state = optimizer.update(grads, opt_state)
            return (optax.apply_updates(params, updates), opt_state), accuracy

        return jax.lax.scan(step, (params, optimizer.init(params)), length=150)[1]

    assert train(params)[-1] == 1
