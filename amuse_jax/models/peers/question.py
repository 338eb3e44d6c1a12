"""The question encoder that AVST, LAVISH and DG-SCT share, and PSTP-Net without CLIP."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from amuse_jax.models.peers import parts

VOCABULARY = 93  # '<pad>' and the words of the train questions, in order of first appearance


class LSTM(nnx.Module):
    """One layer of PyTorch's nn.LSTM: gates in the order i, f, g, o, and two biases."""

    def __init__(self, width_in: int, width: int, rngs: nnx.Rngs):
        self.input = parts.linear(width_in, 4 * width, rngs, fan_in=width)
        self.recurrent = parts.linear(width, 4 * width, rngs)

    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Return the last hidden state and the last cell state: (b, n, e) -> (b, h), (b, h)."""

        def step(carry, projected):
            hidden, cell = carry
            i, f, g, o = jnp.split(projected + self.recurrent(hidden), 4, axis=-1)
            cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
            return (jax.nn.sigmoid(o) * jnp.tanh(cell), cell), None

        zeros = jnp.zeros((len(x), self.recurrent.in_features), x.dtype)
        return jax.lax.scan(step, (zeros, zeros), jnp.swapaxes(self.input(x), 0, 1))[0]


class QuestionEncoder(nnx.Module):
    """E = W tanh([h; c]) with h, c the last states of an LSTM over tanh(embedded words).

    The LSTM runs over the padding too: as in the originals there is no mask, so the number of
    padding words changes the result.
    """

    def __init__(self, vocabulary: int, width: int, rngs: nnx.Rngs):
        draw = nnx.initializers.normal(1.0)  # as PyTorch draws an embedding
        self.words = nnx.Embed(vocabulary, width, embedding_init=draw, rngs=rngs)
        self.lstm = LSTM(width, width, rngs)
        self.out = parts.linear(2 * width, width, rngs)

    def __call__(self, words: Array) -> Array:
        """(b, n) word ids -> (b, d)."""
        states = self.lstm(jnp.tanh(self.words(words)))
        return self.out(jnp.tanh(jnp.concatenate(states, axis=-1)))
