"""Eq. 7-10: the structure, and the parts that NumPy can compute."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from amuse_jax.models import building, hierarchy, swin_v2, universal_encoder
from amuse_jax.models.htsat import HTSATConfig
from amuse_jax.models.swin_v2 import SwinV2Config

VISUAL = SwinV2Config(32, 4, 4, (1, 1, 1, 1), (1, 1, 2, 2), 2)
AUDIO = HTSATConfig(32, 4, 4, (1, 1, 1, 1), (1, 1, 2, 2), 2, mels=16)


@functools.cache
def make_encoder():
    def make(rngs: nnx.Rngs):
        return universal_encoder.UniversalEncoder(VISUAL, AUDIO, 16, rngs=rngs)

    return building.build(make, seed=0)


@jax.jit
def encode(encoder, frames, log_mel):
    return encoder(frames, log_mel)


def draw_inputs(videos=2, segments=3):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (videos, segments, 32, 32, 3)).astype(np.uint8)
    log_mel = rng.normal(-40, 10, (videos, segments, 30, 16)).astype(np.float32)
    return frames, log_mel


def predict(predictor, x):
    norm = predictor.norm
    x = (x - np.asarray(norm.mean[...])) / np.sqrt(np.asarray(norm.variance[...]) + 1e-5)
    for layer in (predictor.first, predictor.second):
        x = np.maximum(x @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...]), 0)
    return x @ np.asarray(predictor.third.kernel[...]) + np.asarray(predictor.third.bias[...])


def test_eq_7_and_8_pool_the_last_tokens_of_four_towers():
    encoder, (frames, log_mel) = make_encoder(), draw_inputs(videos=1, segments=2)
    output = encode(encoder, frames, log_mel)
    for kind in ('rhythm', 'source'):
        pair = getattr(encoder, kind)
        for name, tower, x in (
            ('visual', pair.visual, swin_v2.normalise(jnp.asarray(frames[0]))),
            ('audio', pair.audio, jnp.asarray(log_mel[0])),
        ):
            tokens = np.asarray(jax.jit(lambda tower, x: tower(x).tokens)(tower, x))
            expected = [sum(segment) / len(segment) for segment in tokens]
            stream = getattr(output, f'{kind}_{name}')
            np.testing.assert_allclose(stream[0], np.stack(expected), atol=1e-5)


def test_eq_8_averages():
    tokens = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    np.testing.assert_allclose(hierarchy.pool(jnp.asarray(tokens)), tokens.mean(1), atol=1e-6)


def test_eq_9_predicts_from_both_towers():
    encoder = make_encoder()
    output = jax.tree.map(np.asarray, encode(encoder, *draw_inputs()))
    for v, t in np.ndindex(2, 3):
        x = np.concatenate([output.source_visual[v, t], output.source_audio[v, t]])
        expected = predict(encoder.source_predictor, x)
        np.testing.assert_allclose(output.sources[v, t], expected, atol=1e-4)
        later = min(t + 1, 2)  # Eq. 6 compares a segment with the next one
        x = np.concatenate(
            [
                output.rhythm_visual[v, t],
                output.rhythm_visual[v, later],
                output.rhythm_audio[v, t],
                output.rhythm_audio[v, later],
            ]
        )
        expected = predict(encoder.rhythm_predictor, x)[0]
        np.testing.assert_allclose(output.rhythm[v, t], expected, atol=1e-4)
