"""The answer head: a question attends over time inside each stream, then over the streams (Fig. 5).

Axes: V videos, Q questions, N words, S streams, n tokens of a stream, h heads, c = d / h, d width.
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx

from amuse_jax.models import attention, hierarchy
from amuse_jax.models.streams import Stream


@dataclasses.dataclass(frozen=True)
class AnswerConfig:
    """Sizes of the answer head.

    Attributes:
      width, heads, layers, mlp_width: of its layers.
      dropout: share of what each sublayer adds that is dropped in training.
    """

    width: int
    heads: int
    layers: int
    mlp_width: int
    dropout: float


@flax.struct.dataclass
class Weights:
    """What [CLS] attended to, averaged over heads.

    Attributes:
      importance: [V, Q, S], sums to one: Fig. 5.
      tokens: per stream [V, Q, n], sums to one over a stream that has any token.
    """

    importance: jax.Array
    tokens: tuple[jax.Array, ...]


def drop(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Dropout with inverted scaling; no key: x itself."""
    if key is None or rate == 0:
        return x
    kept = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(kept, x / (1 - rate), jnp.zeros_like(x))


class StreamAttention(nnx.Module):
    """Words attend over time inside each stream, then over the streams.

      w_si = softmax over i of q k_si / sqrt(c), one learned sink beside the tokens
      u_s  = sum_i w_si v_si,   z_s = log of the softmax's normaliser
      g_s  = softmax over s of r (W u_s + e_s) + a z_s             importance of the stream
      out  = W_o sum_s g_s u_s + W_z (g_s z_s)_s

    all per head, but for W_o and W_z. The sink lets a word find nothing, and z says how much it
    found: without it a softmax can't tell one violin from three. Queries and keys start equal, and
    W_o starts as the transpose of the values' projection: a word begins by attending to what has
    its own name, and by copying it.
    """

    def __init__(self, config: AnswerConfig, streams: int, *, rngs: nnx.Rngs, dtype):
        width, self.heads = config.width, config.heads
        size = width // config.heads
        draw = nnx.initializers.orthogonal()

        def linear(width_out):
            return nnx.Linear(width, width_out, kernel_init=draw, dtype=dtype, rngs=rngs)

        self.norm = hierarchy.layer_norm(width, rngs)
        self.query, self.key, self.value, self.out = (linear(width) for _ in range(4))
        self.key.kernel[...] = self.query.kernel[...]
        self.out.kernel[...] = self.value.kernel[...].T
        self.sink = nnx.Param(jnp.zeros((config.heads,)))
        self.ask = linear(width)
        normal = nnx.initializers.normal(size**-0.5)
        self.tell = nnx.Param(normal(rngs.params(), (config.heads, size, size)))
        self.stream = nnx.Param(normal(rngs.params(), (streams, config.heads, size)))
        self.found = nnx.Param(jnp.zeros((config.heads,)))
        self.amount = nnx.Linear(streams * config.heads, width, dtype=dtype, rngs=rngs)

    def __call__(
        self, question: jax.Array, streams: tuple[Stream, ...]
    ) -> tuple[jax.Array, Weights]:
        """[V, Q, N, d] -> what each word found [V, Q, N, d], and [CLS]'s weights."""
        x = self.norm(question).astype(question.dtype)
        query = attention.split_heads(self.query(x), self.heads)
        found = [self._look(query, stream) for stream in streams]
        attended = jnp.stack([u for u, _, _ in found], axis=-2)  # [V, Q, h, N, S, c]
        amounts = jnp.stack([z for _, z, _ in found], axis=-1)  # [V, Q, h, N, S]

        ask = attention.split_heads(self.ask(x), self.heads)
        ask = jnp.einsum('vqhnc,hdc->vqhnd', ask, self.tell[...].astype(ask.dtype))
        scores = jnp.einsum('vqhnd,vqhnsd->vqhns', ask, attended)
        scores = scores + jnp.einsum('vqhnd,shd->vqhns', ask, self.stream[...].astype(ask.dtype))
        scores = scores.astype(jnp.float32) * query.shape[-1] ** -0.5
        scores = scores + self.found[...][:, None, None] * amounts
        gates = jax.nn.softmax(scores, axis=-1)

        fused = jnp.einsum('vqhns,vqhnsc->vqhnc', gates.astype(attended.dtype), attended)
        amount = jnp.moveaxis(gates * amounts, 2, -1)  # [V, Q, N, S, h]
        amount = amount.reshape(*amount.shape[:3], -1).astype(x.dtype)
        out = self.out(attention.join_heads(fused)) + self.amount(amount)
        tokens = tuple(_normalise(w[:, :, :, 0].mean(2)) for _, _, w in found)
        return out, Weights(gates[:, :, :, 0].mean(2), tokens)

    def _look(self, query: jax.Array, stream: Stream):
        """Attended vectors [V, Q, h, N, c], log normalisers [V, Q, h, N], weights [..., N, n]."""
        key = attention.split_heads(self.key(stream.tokens), self.heads)
        value = attention.split_heads(self.value(stream.tokens), self.heads)
        scores = jnp.matmul(query, jnp.swapaxes(key, -1, -2)).astype(jnp.float32)
        scores = scores * query.shape[-1] ** -0.5
        scores = jnp.where(stream.mask[:, None, None, None, :], scores, -jnp.inf)
        sink = jnp.broadcast_to(self.sink[...][:, None, None], (*scores.shape[:-1], 1))
        amount = jax.nn.logsumexp(jnp.concatenate([scores, sink], axis=-1), axis=-1)
        weights = jnp.exp(scores - amount[..., None])
        return jnp.matmul(weights.astype(value.dtype), value), amount, weights


def _normalise(weights: jax.Array) -> jax.Array:
    return weights / jnp.maximum(weights.sum(-1, keepdims=True), 1e-9)


class AnswerLayer(nnx.Module):
    """Attention to the streams, among the words, and an MLP; each on normed words and added."""

    def __init__(self, config: AnswerConfig, streams: int, *, rngs: nnx.Rngs, dtype):
        width, self.heads, self.dropout = config.width, config.heads, config.dropout

        def linear(width_in, width_out):
            return nnx.Linear(width_in, width_out, dtype=dtype, rngs=rngs)

        self.look = StreamAttention(config, streams, rngs=rngs, dtype=dtype)
        self.word_norm = hierarchy.layer_norm(width, rngs)
        self.qkv = linear(width, 3 * width)
        self.out = linear(width, width)
        self.mlp_norm = hierarchy.layer_norm(width, rngs)
        self.inner = linear(width, config.mlp_width)
        self.outer = linear(config.mlp_width, width)

    def __call__(
        self,
        question: jax.Array,
        word_mask: jax.Array,
        streams: tuple[Stream, ...],
        key: jax.Array | None,
    ) -> tuple[jax.Array, Weights]:
        """[V, Q, N, d] and [V, Q, N] bool -> [V, Q, N, d] and [CLS]'s weights."""
        keys = (None,) * 3 if key is None else jax.random.split(key, 3)
        found, weights = self.look(question, streams)
        question = question + drop(found, self.dropout, keys[0])

        x = self.qkv(self.word_norm(question).astype(question.dtype))
        qkv = (attention.split_heads(part, self.heads) for part in jnp.split(x, 3, axis=-1))
        x = attention.attend(*qkv, word_mask[:, :, None, None, :])
        question = question + drop(self.out(attention.join_heads(x)), self.dropout, keys[1])

        x = self.inner(self.mlp_norm(question).astype(question.dtype))
        x = self.outer(jax.nn.gelu(x, approximate=False))
        return question + drop(x, self.dropout, keys[2]), weights


class AnswerHead(nnx.Module):
    """Words and streams -> scores of the answers.

    logits = (W LayerNorm([CLS]) name(answer)) / sqrt(d) + W' LayerNorm([CLS]): an answer is what it
    is called, and what else is learned about it.
    """

    def __init__(
        self,
        config: AnswerConfig,
        text_width: int,
        answers: int,
        streams: int,
        *,
        rngs: nnx.Rngs,
        dtype=jnp.float32,
    ):
        width, self.config, self.dtype = config.width, config, dtype
        self.question_norm = hierarchy.layer_norm(text_width, rngs)
        self.question = nnx.Linear(text_width, width, dtype=dtype, rngs=rngs)
        self.name_norm = hierarchy.layer_norm(text_width, rngs)
        self.name_projection = nnx.Linear(
            text_width, width, use_bias=False, kernel_init=nnx.initializers.orthogonal(),
            dtype=dtype, rngs=rngs,
        )  # fmt: skip

        def make(rngs):
            return AnswerLayer(config, streams, rngs=rngs, dtype=dtype)

        self.layers = nnx.vmap(make)(rngs.split(config.layers))
        self.state_norm = hierarchy.layer_norm(width, rngs)
        self.state = nnx.Linear(width, width, rngs=rngs)
        self.choice = nnx.Linear(width, answers, rngs=rngs)

    def names(self, words: jax.Array) -> jax.Array:
        """Rows of the word table, or means of them, [..., d_t] -> names [..., d]."""
        return self.name_projection(self.name_norm(words))

    def __call__(
        self,
        text: jax.Array,
        words: jax.Array,
        word_mask: jax.Array,
        streams: tuple[Stream, ...],
        answer_names: jax.Array,
        rngs: nnx.Rngs | None = None,
    ) -> tuple[jax.Array, Weights]:
        """Answers the questions.

        Args:
          text: [V, Q, N, d_t], the text tower's tokens, [CLS] first.
          words: [V, Q, N, d_t], the same words' rows of the word table.
          word_mask: [V, Q, N] bool.
          streams: of one video each; nothing of another video is seen.
          answer_names: [A, d].
          rngs: for dropout; None: none.
        Returns:
          logits [V, Q, A] float32; the last layer's weights.
        """
        question = self.question(self.question_norm(text)) + self.names(words)
        keys = None
        if rngs is not None and self.config.dropout > 0:
            keys = jax.random.split(rngs.dropout(), self.config.layers)
        graphdef, state = nnx.split(self.layers)

        def run(question, layer):
            state, key = layer
            return nnx.merge(graphdef, state)(question, word_mask, streams, key)

        question, weights = jax.lax.scan(run, question.astype(self.dtype), (state, keys))
        state = self.state_norm(question[:, :, 0])
        named = self.state(state) @ answer_names.astype(jnp.float32).T * state.shape[-1] ** -0.5
        return named + self.choice(state), jax.tree.map(lambda leaf: leaf[-1], weights)
