"""The answer head: a question attends over time in each stream, then over the streams (Fig. 5).

Axes: V videos, Q questions, N words, M probes, S streams, n tokens, h heads, c = d / h, d width.
"""

import dataclasses
import functools
import operator

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from amuse_jax.models import dense, hierarchy
from amuse_jax.models.attention import multihead
from amuse_jax.models.attention.bounds import MASKED
from amuse_jax.models.streams import Stream

# Lower bound of a softmax's normaliser, relative to exp(largest score). Its inverse square is
# finite in float32.
MIN_NORMALISER = 1e-18
# A word names a thing if the cosine of their embeddings is above about this threshold.
MATCH_THRESHOLD, MATCH_SHARPNESS = 0.75, 20.0
NAME_SCALE = 2.0  # initial scale of names compared with the other parts of a word or a token


@dataclasses.dataclass(frozen=True)
class AnswerConfig:
    """Sizes of the answer head.

    Attributes:
      width: d, channels of a token.
      heads, layers: number of attention heads and of layers.
      mlp_width: hidden channels of a layer's MLP.
      probes: M, number of vectors that represent a question; the first is [CLS].
      dropout: dropout rate of each sublayer's output in training; the probes of a question share
        one mask.
    """

    width: int
    heads: int
    layers: int
    mlp_width: int
    probes: int
    dropout: float


@flax.struct.dataclass
class Weights:
    """Attention weights of [CLS], averaged over heads.

    Attributes:
      importance: [V, Q, S], importance of each stream (Fig. 5); sums to one.
      tokens: [V, Q, n], weight of each token; sums to one inside each stream that has a token.
    """

    importance: jax.Array
    tokens: jax.Array


@flax.struct.dataclass
class Tokens:
    """The concatenated tokens of all streams.

    Attributes:
      shared: [V, n_1, d] tokens that do not depend on the question, or None.
      own: [V, Q, n_2, d] tokens that depend on the question, or None.
      mask: [V, n] bool with n = n_1 + n_2, False = padding.
      member: [n, S] one-hot stream of each token.
    """

    shared: jax.Array | None
    own: jax.Array | None
    mask: jax.Array
    member: jax.Array


class StreamAttention(nnx.Module):
    """Attention of the probes over time inside each stream, then over the streams.

      w_i = exp(q k_i / sqrt(c) - z_s)                                  for token i of stream s
      z_s = log(exp(sink) + sum over i in s of exp(q k_i / sqrt(c)))
      g_s = softmax over s of r e_s + a z_s                             importance of the stream
      out = W_o sum_s g_s sum_{i in s} w_i v_i + W_z (g_s z_s)_s

    Everything except W_o and W_z is per head. The learned sink lets a probe attend to nothing. z
    measures how much a probe found; with a plain softmax one violin would look like three.

    Queries and keys start with equal weights, and W_o starts as the transpose of the projection of
    the values. So a probe first attends to tokens that contain its own names, and copies them.
    """

    def __init__(self, config: AnswerConfig, streams: int, *, rngs: nnx.Rngs, dtype):
        width, self.heads, self.dtype = config.width, config.heads, dtype

        def linear(width_out):
            return dense.Linear(width, width_out, dtype=dtype, rngs=rngs)

        self.norm = hierarchy.layer_norm(width, rngs)
        self.query, self.key, self.value, self.out = (linear(width) for _ in range(4))
        self.key.kernel[...] = self.query.kernel[...]
        self.out.kernel[...] = self.value.kernel[...].T
        self.sink = nnx.Param(jnp.zeros((config.heads,)))
        self.prefer = linear(config.heads * streams)  # r e_s
        self.found = nnx.Param(jnp.full((config.heads,), 0.5, jnp.float32))  # a
        self.amount = dense.Linear(config.heads * streams, width, dtype=dtype, rngs=rngs)

    def __call__(self, probes: jax.Array, tokens: Tokens) -> tuple[jax.Array, Weights]:
        """Return the attention output [V, Q, M, d] of each probe, and the weights of [CLS]."""
        videos, questions, count, width = probes.shape
        rows = questions * count
        x = self.norm(probes).astype(self.dtype).reshape(videos, rows, width)
        member = tokens.member

        scores = self._scores(multihead.split_heads(self.query(x), self.heads), tokens, questions)
        sink = self.sink[...][:, None, None]
        top = jax.lax.stop_gradient(jnp.maximum(scores.max(-1, keepdims=True), sink))
        weights = jnp.exp(scores - top)  # [V, h, Q * M, n]
        totals = jnp.maximum(weights @ member + jnp.exp(sink - top), MIN_NORMALISER)
        amounts = jnp.log(totals) + top  # [V, h, Q * M, S]

        prefer = self.prefer(x).astype(jnp.float32)
        gates = multihead.split_heads(prefer, self.heads) + self.found[...][:, None, None] * amounts
        gates = jax.nn.softmax(gates, axis=-1)
        fused = self._sum_values(weights * ((gates / totals) @ member.T), tokens, questions)
        amount = multihead.join_heads(gates * amounts).astype(self.dtype)
        out = self.out(multihead.join_heads(fused)) + self.amount(amount)

        first = slice(None, None, count)  # [CLS] of each question
        importance = gates[:, :, first].mean(1)
        shares = (weights[:, :, first] / (totals[:, :, first] @ member.T)).mean(1)
        shares = shares / jnp.maximum(shares @ member @ member.T, 1e-9)
        return out.reshape(probes.shape), Weights(importance, shares)

    def _scores(self, query: jax.Array, tokens: Tokens, questions: int) -> jax.Array:
        """Return the scores q k / sqrt(c), float32, -inf for padding.

        [V, h, Q * M, c] -> [V, h, Q * M, n]
        """
        scores = []
        if tokens.shared is not None:
            key = multihead.split_heads(self.key(tokens.shared), self.heads)
            scores.append(multihead.scores(query, key))
        if tokens.own is not None:
            key = multihead.split_heads(self.key(tokens.own), self.heads)
            query = query.reshape(*query.shape[:2], questions, -1, query.shape[-1])
            own = multihead.scores(query, key.swapaxes(1, 2))
            scores.append(own.reshape(*own.shape[:2], -1, own.shape[-1]))
        scores = jnp.concatenate(scores, axis=-1) * query.shape[-1] ** -0.5
        return jnp.where(tokens.mask[:, None, None, :], scores, -jnp.inf)

    def _sum_values(self, weights: jax.Array, tokens: Tokens, questions: int) -> jax.Array:
        """Return the weighted sums of the values: [V, h, Q * M, n] -> [V, h, Q * M, c]."""
        weights = weights.astype(self.dtype)
        total, start = 0, 0
        if tokens.shared is not None:
            value = multihead.split_heads(self.value(tokens.shared), self.heads)
            start = value.shape[-2]
            total = jnp.einsum('vhrn,vhnc->vhrc', weights[..., :start], value)
        if tokens.own is not None:
            value = multihead.split_heads(self.value(tokens.own), self.heads)
            weights = weights[..., start:]
            weights = weights.reshape(*weights.shape[:2], questions, -1, weights.shape[-1])
            own = jnp.einsum('vhqmn,vqhnc->vhqmc', weights, value)
            total = total + own.reshape(*own.shape[:2], -1, own.shape[-1])
        return total


class AnswerLayer(nnx.Module):
    """Attention to the streams, self-attention of the probes, and an MLP.

    Each of the three has a norm before it and a residual addition after it.
    """

    def __init__(self, config: AnswerConfig, streams: int, *, rngs: nnx.Rngs, dtype):
        width, self.heads = config.width, config.heads

        def linear(width_in, width_out):
            return dense.Linear(width_in, width_out, dtype=dtype, rngs=rngs)

        self.look = StreamAttention(config, streams, rngs=rngs, dtype=dtype)
        self.probe_norm = hierarchy.layer_norm(width, rngs)
        self.qkv = linear(width, 3 * width)
        self.out = linear(width, width)
        self.mlp_norm = hierarchy.layer_norm(width, rngs)
        self.inner = linear(width, config.mlp_width)
        self.outer = linear(config.mlp_width, width)

    def __call__(
        self, probes: jax.Array, tokens: Tokens, dropout_mask: jax.Array | None
    ) -> tuple[jax.Array, Weights]:
        """Run the layer.

        Args:
          probes: [V, Q, M, d].
          tokens: the streams.
          dropout_mask: [3, V, Q, 1, d], factor of each sublayer's output; None = no dropout.
        Returns:
          The probes [V, Q, M, d], and the attention weights of [CLS].
        """
        mask = (1, 1, 1) if dropout_mask is None else dropout_mask.astype(probes.dtype)
        attended, weights = self.look(probes, tokens)
        probes = probes + attended * mask[0]

        qkv = jnp.split(self.qkv(self.probe_norm(probes).astype(probes.dtype)), 3, axis=-1)
        probes = probes + self.out(multihead.attend_heads(*qkv, self.heads)) * mask[1]

        x = self.inner(self.mlp_norm(probes).astype(probes.dtype))
        return probes + self.outer(jax.nn.gelu(x, approximate=False)) * mask[2], weights


class AnswerHead(nnx.Module):
    """The answer head: words and streams -> logits of the answers.

    First every word gets the tokens of the things that it names, and attends to all streams. Then
    M probes represent the question: [CLS], and M - 1 learned queries over its words. The probes go
    through the layers, and the first one gives the logits:
      logits = (W x) name(answer) / sqrt(d) + W' x,   x = LayerNorm(probe 0)
    The first term matches the name of the answer; the second learns what the name does not say.
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
        self.question = dense.Linear(text_width, width, dtype=dtype, rngs=rngs)
        self.name_norm = hierarchy.layer_norm(
            text_width, rngs, scale_init=nnx.initializers.constant(NAME_SCALE)
        )
        self.name_projection = dense.Linear(
            text_width, width, use_bias=False, dtype=dtype, rngs=rngs
        )
        self.link = dense.Linear(width, width, dtype=dtype, rngs=rngs)
        self.look = StreamAttention(config, streams, rngs=rngs, dtype=dtype)
        self.word_key = dense.Linear(width, width, dtype=dtype, rngs=rngs)
        draw = nnx.initializers.normal(2.0)
        self.probes = nnx.Param(draw(rngs.params(), (config.probes - 1, width)))
        self.role = nnx.Param(nnx.initializers.normal(0.5)(rngs.params(), (config.probes, width)))

        def make(rngs):
            return AnswerLayer(config, streams, rngs=rngs, dtype=dtype)

        self.token_norm = hierarchy.layer_norm(width, rngs)
        self.layers = nnx.vmap(make)(rngs.split(config.layers))
        self.state_norm = hierarchy.layer_norm(width, rngs)
        self.state = dense.Linear(width, width, rngs=rngs)
        self.choice = dense.Linear(width, answers, rngs=rngs)

    def embed_names(self, words: jax.Array) -> jax.Array:
        """Embed rows of the word table, or means of rows, as names: [..., d_t] -> [..., d]."""
        return self.name_projection(self.name_norm(words))

    def link_words(self, words: jax.Array, streams: tuple[Stream, ...]) -> jax.Array | float:
        """Return, for each word, the tokens of the things that have its name:

          W sum over things i of sigmoid(k (cos(word, name_i) - t)) token_i

        Learned attention also finds the violin that a question names, but needs far more examples.

        Args:
          words: [V, Q, N, d] words embedded as names.
          streams: all streams.
        Returns:
          [V, Q, N, d]; 0 if no stream has named things.
        """
        named = [stream for stream in streams if stream.names is not None]
        if not named:
            return 0.0
        things = jnp.concatenate([stream.tokens[:, 0, -len(stream.names) :] for stream in named], 1)
        names = jnp.concatenate([stream.names for stream in named])
        cosine = jnp.einsum('vqnd,id->vqni', _unit(words), _unit(names))
        match = jax.nn.sigmoid(MATCH_SHARPNESS * (cosine - MATCH_THRESHOLD)).astype(self.dtype)
        values = self.link(things)
        return jnp.einsum('vqni,vid->vqnd', match, values)

    def condense(self, question: jax.Array, word_mask: jax.Array) -> jax.Array:
        """Represent a question by M probes: words [V, Q, N, d] -> probes [V, Q, M, d]."""
        scores = jnp.einsum(
            'md,vqnd->vqmn', self.probes[...], self.word_key(question),
            preferred_element_type=jnp.float32,
        )  # fmt: skip
        scores = scores * question.shape[-1] ** -0.5
        mask = word_mask[:, :, None]
        weights = jax.nn.softmax(jnp.where(mask, scores, MASKED), axis=-1)
        weights = jnp.where(mask, weights, 0)  # zeros for a question without words
        picked = weights.astype(question.dtype) @ question
        return jnp.concatenate([question[:, :, :1], picked], axis=2) + self.role[...]

    def concatenate_streams(self, streams: tuple[Stream, ...]) -> tuple[Tokens, list[slice]]:
        """Normalise and concatenate the streams.

        Returns:
          All tokens, and the slice of them that holds each stream.
        """
        order = sorted(range(len(streams)), key=lambda i: streams[i].tokens.shape[1] > 1)
        groups = {False: [], True: []}
        member, slices, start = [], [slice(0)] * len(streams), 0
        for index in order:
            tokens = streams[index].tokens
            groups[tokens.shape[1] > 1].append(tokens)
            slices[index] = slice(start, start + tokens.shape[2])
            start += tokens.shape[2]
            member += [index] * tokens.shape[2]
        shared, own = (
            self.token_norm(jnp.concatenate(group, axis=2)).astype(self.dtype) if group else None
            for group in groups.values()
        )
        mask = jnp.concatenate([streams[index].mask for index in order], axis=1)
        member = jnp.asarray(np.eye(len(streams))[member], jnp.float32)
        return Tokens(None if shared is None else shared[:, 0], own, mask, member), slices

    def __call__(
        self,
        text: jax.Array,
        words: jax.Array,
        word_mask: jax.Array,
        streams: tuple[Stream, ...],
        answer_names: jax.Array,
        rngs: nnx.Rngs | None = None,
    ) -> tuple[jax.Array, jax.Array, list[jax.Array]]:
        """Answer the questions.

        Args:
          text: [V, Q, N, d_t], tokens of the text tower, [CLS] first.
          words: [V, Q, N, d_t], rows of the word table for the same words.
          word_mask: [V, Q, N] bool, False = padding.
          streams: all streams; a question attends only to the tokens of its own video.
          answer_names: [A, d] embedded names of the answers.
          rngs: random keys for dropout; None = no dropout.
        Returns:
          logits [V, Q, A] float32; importance [V, Q, S] of the streams; and for each stream the
          weights [V, Q, n] of its tokens, which sum to one. The weights are those of the last
          layer.
        """
        tokens, slices = self.concatenate_streams(streams)
        names = self.embed_names(words)
        question = self.question(self.question_norm(text)) + names + self.link_words(names, streams)
        question = question + self.look(question.astype(self.dtype), tokens)[0]
        probes = self.condense(question, word_mask).astype(self.dtype)
        dropout_masks = None
        if rngs is not None and self.config.dropout > 0:
            keep_rate = 1 - self.config.dropout
            videos, questions, _, width = probes.shape
            # Videos come first, so that every device can draw the masks of its own videos.
            shape = (videos, self.config.layers, 3, questions, 1, width)
            masks = jax.random.bernoulli(rngs.dropout(), keep_rate, shape) / keep_rate
            dropout_masks = jnp.moveaxis(masks, 0, 2)
        graphdef, state = nnx.split(self.layers)
        for index in range(self.config.layers):
            # Not a scan, which would stack what the gradient needs.
            place = functools.partial(jax.tree.map, operator.itemgetter(index))
            layer = nnx.merge(graphdef, place(state))
            probes, weights = layer(probes, tokens, place(dropout_masks))
        state = self.state_norm(probes[:, :, 0])
        named = self.state(state) @ answer_names.astype(jnp.float32).T * state.shape[-1] ** -0.5
        return (
            named + self.choice(state),
            weights.importance,
            [weights.tokens[..., part] for part in slices],
        )


def _unit(x: jax.Array) -> jax.Array:
    """Divide vectors by their length, in float32; zeros stay zeros."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.square(x).sum(-1, keepdims=True) + 1e-6)
