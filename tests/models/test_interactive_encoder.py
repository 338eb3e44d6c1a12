import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from amuse_jax.models import building, hierarchy, swin_v2
from amuse_jax.models.htsat import HTSATConfig
from amuse_jax.models.interactive_encoder import InteractiveConfig, InteractiveEncoder
from amuse_jax.models.swin_v2 import SwinV2Config
from amuse_jax.models.text import TextConfig

# Three rounds. The audio tower's stage 3 has four windows, so that rounds differ in their shifts.
CONFIG = InteractiveConfig(
    visual=SwinV2Config(32, 4, 4, (1, 1, 6, 1), (1, 1, 2, 2), 2),
    audio=HTSATConfig(64, 4, 4, (1, 1, 3, 1), (1, 1, 2, 2), 2, mels=32),
    text=TextConfig(vocab_size=20, max_words=6, width=8, depth=3, heads=2, mlp_width=16),
    rounds=3,
    width=8,
    heads=2,
    mlp_width=16,
)
VIDEOS, QUESTIONS, SEGMENTS, WORDS = 2, 3, 2, 5


@functools.cache
def make_encoder(is_open=False):
    encoder = building.build(lambda rngs: InteractiveEncoder(CONFIG, rngs=rngs), seed=0)
    if is_open:
        for name in ('visual', 'audio', 'text'):
            out = getattr(encoder.adapters, name).project_out
            out.kernel[...] = 0.3 * jax.random.normal(jax.random.key(1), out.kernel.shape)
    return encoder


def draw_inputs():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (VIDEOS, SEGMENTS, 32, 32, 3)).astype(np.uint8)
    log_mel = rng.normal(0, 1, (VIDEOS, SEGMENTS, 40, 32)).astype(np.float32)
    words = rng.integers(0, 20, (VIDEOS, QUESTIONS, WORDS)).astype(np.int32)
    mask = np.ones(words.shape, bool)
    mask[:, 1, 3:] = False
    return frames, log_mel, words, mask, np.array([[True, True], [True, False]])


@jax.jit
def encode(encoder, frames, log_mel, words, mask, segment_mask):
    return encoder(encoder.question_free(frames, log_mel), words, mask, segment_mask)


@jax.jit
def run_towers(encoder, frames, log_mel, words, mask):
    """Run the three towers without adapters."""
    images = swin_v2.normalise(frames.reshape(-1, *frames.shape[2:]))
    visual = encoder.visual(images).pooled
    audio = encoder.audio(log_mel.reshape(-1, *log_mel.shape[2:])).pooled
    text = encoder.text(words.reshape(-1, words.shape[-1]), mask.reshape(-1, mask.shape[-1]))
    lead = frames.shape[:2]
    return visual.reshape(*lead, -1), audio.reshape(*lead, -1), text.reshape(*words.shape, -1)


def test_a_fresh_encoder_equals_its_towers():
    encoder, inputs = make_encoder(), draw_inputs()
    visual, audio, text = run_towers(encoder, *inputs[:4])
    results = encode(encoder, *inputs)
    repeated = [np.repeat(x[:, None], QUESTIONS, axis=1) for x in (visual, audio)]
    for result, expected in zip(results, (*repeated, text)):
        np.testing.assert_allclose(result, expected, atol=1e-5)


def test_closed_streams_equal_a_fresh_encoder():
    encoder, inputs = make_encoder(), draw_inputs()
    closed = jax.jit(lambda m, f, a: m.closed(m.question_free(f, a)))(encoder, *inputs[:2])
    for one, other in zip(closed, encode(encoder, *inputs)):
        np.testing.assert_allclose(np.repeat(one[:, None], QUESTIONS, 1), other, atol=1e-5)


def test_rounds_equal_towers_and_adapters_in_turn():
    encoder, inputs = make_encoder(is_open=True), draw_inputs()
    results = encode(encoder, *inputs)
    for one, other in zip(results, jax.jit(written_out)(encoder, *inputs)):
        np.testing.assert_allclose(one, other, atol=2e-5)


def written_out(encoder, frames, log_mel, words, mask, segment_mask):
    """Run towers and adapters in turn, with every token repeated for every question at once."""
    towers = (encoder.visual, encoder.audio)
    images = swin_v2.normalise(frames.reshape(-1, *frames.shape[2:]))
    tokens = []
    for tower, x in zip(towers, (images, log_mel.reshape(-1, *log_mel.shape[2:]))):
        x = tower.stem(x)
        x = x.reshape(VIDEOS, 1, SEGMENTS, *x.shape[1:])
        tokens.append(jnp.repeat(x, QUESTIONS, axis=1))
    flat = mask.reshape(-1, WORDS)
    text = encoder.text.embed(words.reshape(-1, WORDS), flat)
    for index in range(CONFIG.rounds):
        for i, tower in enumerate(towers):
            step = tower.stages[2].depth // CONFIG.rounds
            x = tokens[i].reshape(-1, *tokens[i].shape[3:])
            x = tower.stages[2].run(x, index * step, (index + 1) * step)
            tokens[i] = x.reshape(tokens[i].shape)
        graphdef, state = nnx.split(encoder.text.stack)
        layer = nnx.merge(graphdef, jax.tree.map(lambda leaf: leaf[index], state))  # noqa: B023
        text = layer(text, flat)
        graphdef, state = nnx.split(encoder.adapters)
        adapter = nnx.merge(graphdef, jax.tree.map(lambda leaf: leaf[index], state))  # noqa: B023
        text = text.reshape(VIDEOS, QUESTIONS, WORDS, -1)
        *tokens, text = adapter(*tokens, text, mask, segment_mask)
        text = text.reshape(-1, *text.shape[2:])
    pooled = [
        hierarchy.pool(tower.tail(x.reshape(-1, *x.shape[3:]))).reshape(*x.shape[:3], -1)
        for tower, x in zip(towers, tokens)
    ]
    return *pooled, text.reshape(VIDEOS, QUESTIONS, WORDS, -1)


def test_questions_together_equal_questions_one_by_one():
    encoder, (frames, log_mel, words, mask, segments) = make_encoder(is_open=True), draw_inputs()
    together = encode(encoder, frames, log_mel, words, mask, segments)
    for q in range(QUESTIONS):
        alone = encode(encoder, frames, log_mel, words[:, q, None], mask[:, q, None], segments)
        for one, other in zip(alone, together):
            np.testing.assert_allclose(one[:, 0], other[:, q], atol=1e-5)


def test_padding_has_no_influence():
    encoder, (frames, log_mel, words, mask, segments) = make_encoder(is_open=True), draw_inputs()
    before = encode(encoder, frames, log_mel, words, mask, segments)
    frames, log_mel = frames.copy(), log_mel.copy()
    frames[1, 1], log_mel[1, 1] = 255, 3.0
    after = encode(encoder, frames, log_mel, np.where(mask, words, 7), mask, segments)
    for one, other, valid in zip(
        before, after, (segments[:, None, :, None], segments[:, None, :, None], mask[..., None])
    ):
        np.testing.assert_allclose(np.where(valid, one, 0), np.where(valid, other, 0), atol=1e-5)


def test_open_adapters_let_the_question_into_every_stream():
    encoder, (frames, log_mel, words, mask, segments) = make_encoder(is_open=True), draw_inputs()
    visual, audio, _ = encode(encoder, frames, log_mel, words, mask, segments)
    assert np.abs(visual[:, 0] - visual[:, 2]).max() > 1e-3
    assert np.abs(audio[:, 0] - audio[:, 2]).max() > 1e-3


def test_rounds_must_divide_the_depths():
    with pytest.raises(ValueError, match='6 visual blocks .* 4 rounds'):
        InteractiveEncoder(dataclasses.replace(CONFIG, rounds=4), rngs=nnx.Rngs(0))


@pytest.mark.slow
def test_the_remat_policy_does_not_change_the_gradient():
    encoder, (*media, words, mask, segment_mask) = make_encoder(is_open=True), draw_inputs()
    question_free = jax.jit(lambda encoder, *media: encoder.question_free(*media))(encoder, *media)
    state, gradients = nnx.state(encoder), []
    for remat_policy in ('everything', 'products'):
        config = dataclasses.replace(CONFIG, remat_policy=remat_policy)
        abstract = nnx.eval_shape(lambda c=config: InteractiveEncoder(c, rngs=nnx.Rngs(0)))
        graphdef = nnx.split(abstract)[0]

        def loss(question_free, graphdef=graphdef):
            streams = nnx.merge(graphdef, state)(question_free, words, mask, segment_mask)
            return sum(jnp.square(stream).sum() for stream in streams)

        gradients.append(jax.jit(jax.grad(loss))(question_free))
    for theirs, ours in zip(*map(jax.tree.leaves, gradients), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())
