"""The answer head: a question attends over time inside each stream, then over the streams (Fig. 5).

Axes: V videos, Q questions, N words, M probes, S streams, n tokens, h heads, c = d / h, d width.
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from amuse_jax.models import attention, hierarchy
from amuse_jax.models.streams import Stream

# Of a softmax's normaliser, relative to the largest score's share: its inverse square stays finite.
LEAST = 1e-18
# A word names a thing from about this cosine of their embeddings on.
ALIKE, SHARPNESS = 0.75, 20.0
NAME_SCALE = 2.0  # of names beside what else a word or a token says, at the start


@dataclasses.dataclass(frozen=True)
class AnswerConfig:
    """Sizes of the answer head.

    Attributes:
      width, heads, layers, mlp_width: of its layers.
      probes: M, vectors that a question is condensed to; the first is [CLS].
      dropout: share of what each sublayer adds to a question that is dropped in training.
    """

    width: int
    heads: int
    layers: int
    mlp_width: int
    probes: int
    dropout: float


@flax.struct.dataclass
class Weights:
    """What [CLS] attended to, averaged over heads.

    Attributes:
      importance: [V, Q, S], sums to one: Fig. 5.
      tokens: [V, Q, n], sums to one inside each stream that has any token.
    """

    importance: jax.Array
    tokens: jax.Array


@flax.struct.dataclass
class Tokens:
    """All streams in a row: first those of the video alone, then those that depend on the question.

    Attributes:
      shared: [V, n_1, d] or None.
      own: [V, Q, n_2, d] or None.
      mask: [V, n] bool, n = n_1 + n_2.
      member: [n, S] one-hot stream of each token.
    """

    shared: jax.Array | None
    own: jax.Array | None
    mask: jax.Array
    member: jax.Array


class StreamAttention(nnx.Module):
    """Probes attend over time inside each stream, then over the streams.

      w_i = exp(q k_i / sqrt(c) - z_s)                                  for token i of stream s
      z_s = log(exp(sink) + sum over i in s of exp(q k_i / sqrt(c)))
      g_s = softmax over s of r e_s + a z_s                             importance of the stream
      out = W_o sum_s g_s sum_{i in s} w_i v_i + W_z (g_s z_s)_s

    all per head, but for W_o and W_z. The learned sink lets a probe find nothing, and z says how
    much it found: without it a softmax can't tell one violin from three. Queries and keys start
    equal, and W_o starts as the transpose of the values' projection: a probe begins by attending to
    what has the names it holds, and by copying it.
    """

    def __init__(self, config: AnswerConfig, streams: int, *, rngs: nnx.Rngs, dtype):
        width, self.heads, self.dtype = config.width, config.heads, dtype

        def linear(width_out):
            return nnx.Linear(width, width_out, dtype=dtype, rngs=rngs)

        self.norm = hierarchy.layer_norm(width, rngs)
        self.query, self.key, self.value, self.out = (linear(width) for _ in range(4))
        self.key.kernel[...] = self.query.kernel[...]
        self.out.kernel[...] = self.value.kernel[...].T
        self.sink = nnx.Param(jnp.zeros((config.heads,)))
        self.prefer = linear(config.heads * streams)  # r e_s
        self.found = nnx.Param(jnp.full((config.heads,), 0.5, jnp.float32))  # a
        self.amount = nnx.Linear(config.heads * streams, width, dtype=dtype, rngs=rngs)

    def __call__(self, probes: jax.Array, tokens: Tokens) -> tuple[jax.Array, Weights]:
        """[V, Q, M, d] -> what each probe found [V, Q, M, d], and [CLS]'s weights."""
        videos, questions, count, width = probes.shape
        rows = questions * count
        x = self.norm(probes).astype(self.dtype).reshape(videos, rows, width)
        member = tokens.member

        scores = self._scores(attention.split_heads(self.query(x), self.heads), tokens, questions)
        sink = self.sink[...][:, None, None]
        top = jax.lax.stop_gradient(jnp.maximum(scores.max(-1, keepdims=True), sink))
        weights = jnp.exp(scores - top)  # [V, h, Q * M, n]
        totals = jnp.maximum(weights @ member + jnp.exp(sink - top), LEAST)
        amounts = jnp.log(totals) + top  # [V, h, Q * M, S]

        prefer = self.prefer(x).astype(jnp.float32)
        gates = attention.split_heads(prefer, self.heads) + self.found[...][:, None, None] * amounts
        gates = jax.nn.softmax(gates, axis=-1)
        fused = self._gather(weights * ((gates / totals) @ member.T), tokens, questions)
        amount = attention.join_heads(gates * amounts).astype(self.dtype)
        out = self.out(attention.join_heads(fused)) + self.amount(amount)

        first = slice(None, None, count)  # [CLS] of each question
        importance = gates[:, :, first].mean(1)
        found = (weights[:, :, first] / (totals[:, :, first] @ member.T)).mean(1)
        found = found / jnp.maximum(found @ member @ member.T, 1e-9)
        return out.reshape(probes.shape), Weights(importance, found)

    def _scores(self, query: jax.Array, tokens: Tokens, questions: int) -> jax.Array:
        """[V, h, Q * M, c] -> q k / sqrt(c), [V, h, Q * M, n] float32, -inf for padding."""
        scores = []
        if tokens.shared is not None:
            key = attention.split_heads(self.key(tokens.shared), self.heads)
            scores.append(jnp.einsum('vhrc,vhnc->vhrn', query, key))
        if tokens.own is not None:
            key = attention.split_heads(self.key(tokens.own), self.heads)
            query = query.reshape(*query.shape[:2], questions, -1, query.shape[-1])
            own = jnp.einsum('vhqmc,vqhnc->vhqmn', query, key)
            scores.append(own.reshape(*own.shape[:2], -1, own.shape[-1]))
        scores = jnp.concatenate(scores, axis=-1).astype(jnp.float32) * query.shape[-1] ** -0.5
        return jnp.where(tokens.mask[:, None, None, :], scores, -jnp.inf)

    def _gather(self, weights: jax.Array, tokens: Tokens, questions: int) -> jax.Array:
        """Sums of the tokens' values with these weights [V, h, Q * M, n]: [V, h, Q * M, c]."""
        weights = weights.astype(self.dtype)
        total, start = 0, 0
        if tokens.shared is not None:
            value = attention.split_heads(self.value(tokens.shared), self.heads)
            start = value.shape[-2]
            total = jnp.einsum('vhrn,vhnc->vhrc', weights[..., :start], value)
        if tokens.own is not None:
            value = attention.split_heads(self.value(tokens.own), self.heads)
            weights = weights[..., start:]
            weights = weights.reshape(*weights.shape[:2], questions, -1, weights.shape[-1])
            own = jnp.einsum('vhqmn,vqhnc->vhqmc', weights, value)
            total = total + own.reshape(*own.shape[:2], -1, own.shape[-1])
        return total


class AnswerLayer(nnx.Module):
    """Attention to the streams, among the probes, and an MLP; each on normed probes and added."""

    def __init__(self, config: AnswerConfig, streams: int, *, rngs: nnx.Rngs, dtype):
        width, self.heads = config.width, config.heads

        def linear(width_in, width_out):
            return nnx.Linear(width_in, width_out, dtype=dtype, rngs=rngs)

        self.look = StreamAttention(config, streams, rngs=rngs, dtype=dtype)
        self.probe_norm = hierarchy.layer_norm(width, rngs)
        self.qkv = linear(width, 3 * width)
        self.out = linear(width, width)
        self.mlp_norm = hierarchy.layer_norm(width, rngs)
        self.inner = linear(width, config.mlp_width)
        self.outer = linear(config.mlp_width, width)

    def __call__(
        self, probes: jax.Array, tokens: Tokens, kept: jax.Array | None
    ) -> tuple[jax.Array, Weights]:
        """Args:
          probes: [V, Q, M, d].
          kept: [3, V, Q, 1, d], what each sublayer adds is multiplied with it; None: nothing.
        Returns:
          [V, Q, M, d] and [CLS]'s weights.
        """
        kept = (1, 1, 1) if kept is None else kept.astype(probes.dtype)
        found, weights = self.look(probes, tokens)
        probes = probes + found * kept[0]

        x = self.qkv(self.probe_norm(probes).astype(probes.dtype))
        qkv = (attention.split_heads(part, self.heads) for part in jnp.split(x, 3, axis=-1))
        probes = probes + self.out(attention.join_heads(attention.attend(*qkv))) * kept[1]

        x = self.inner(self.mlp_norm(probes).astype(probes.dtype))
        return probes + self.outer(jax.nn.gelu(x, approximate=False)) * kept[2], weights


class AnswerHead(nnx.Module):
    """Words and streams -> scores of the answers.

    Every word is told what the streams say of the thing that it names, and looks at all of them;
    the question is then condensed to M probes, [CLS] and M - 1 learned queries over its words.
    Probes go through the layers; the first one answers:
      logits = (W x) name(answer) / sqrt(d) + W' x,   x = LayerNorm(probe 0)
    so an answer is what it is called, and what else is learned about it.
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
        self.name_norm = hierarchy.layer_norm(
            text_width, rngs, scale_init=nnx.initializers.constant(NAME_SCALE)
        )
        self.name_projection = nnx.Linear(text_width, width, use_bias=False, dtype=dtype, rngs=rngs)
        self.link = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        self.look = StreamAttention(config, streams, rngs=rngs, dtype=dtype)
        self.word_key = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        draw = nnx.initializers.normal(2.0)
        self.probes = nnx.Param(draw(rngs.params(), (config.probes - 1, width)))
        self.role = nnx.Param(nnx.initializers.normal(0.5)(rngs.params(), (config.probes, width)))

        def make(rngs):
            return AnswerLayer(config, streams, rngs=rngs, dtype=dtype)

        self.token_norm = hierarchy.layer_norm(width, rngs)
        self.layers = nnx.vmap(make)(rngs.split(config.layers))
        self.state_norm = hierarchy.layer_norm(width, rngs)
        self.state = nnx.Linear(width, width, rngs=rngs)
        self.choice = nnx.Linear(width, answers, rngs=rngs)

    def names(self, words: jax.Array) -> jax.Array:
        """Rows of the word table, or means of them, [..., d_t] -> names [..., d]."""
        return self.name_projection(self.name_norm(words))

    def linked(self, words: jax.Array, streams: tuple[Stream, ...]) -> jax.Array | float:
        """What the streams say of the things that the words name, each found by its name:

          W sum over things i of sigmoid(k (cos(word, name_i) - t)) token_i

        Learned attention finds the violin of the question too, but only after far more examples.

        Args:
          words: [V, Q, N, d] names of the words.
        Returns:
          [V, Q, N, d]; 0 if no stream has named things.
        """
        named = [stream for stream in streams if stream.names is not None]
        if not named:
            return 0.0
        things = jnp.concatenate([stream.tokens[:, 0, -len(stream.names) :] for stream in named], 1)
        names = jnp.concatenate([stream.names for stream in named])
        cosine = jnp.einsum('vqnd,id->vqni', _unit(words), _unit(names))
        match = jax.nn.sigmoid(SHARPNESS * (cosine - ALIKE)).astype(self.dtype)
        values = self.link(things)
        return jnp.einsum('vqni,vid->vqnd', match, values)

    def condense(self, question: jax.Array, word_mask: jax.Array) -> jax.Array:
        """Words [V, Q, N, d] -> probes [V, Q, M, d]."""
        scores = jnp.einsum('md,vqnd->vqmn', self.probes[...], self.word_key(question))
        scores = scores.astype(jnp.float32) * question.shape[-1] ** -0.5
        weights = jax.nn.softmax(jnp.where(word_mask[:, :, None], scores, -jnp.inf), axis=-1)
        picked = weights.astype(question.dtype) @ question
        return jnp.concatenate([question[:, :, :1], picked], axis=2) + self.role[...]

    def in_a_row(self, streams: tuple[Stream, ...]) -> tuple[Tokens, list[slice]]:
        """Joins the streams, normed; the slices say where each one's tokens are."""
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
        """Answers the questions.

        Args:
          text: [V, Q, N, d_t], the text tower's tokens, [CLS] first.
          words: [V, Q, N, d_t], the same words' rows of the word table.
          word_mask: [V, Q, N] bool.
          streams: of one video each; nothing of another video is seen.
          answer_names: [A, d].
          rngs: for dropout; None: none.
        Returns:
          logits [V, Q, A] float32; importance [V, Q, S]; and per stream the weights of its tokens
          [V, Q, n], which sum to one. Both weights are the last layer's.
        """
        tokens, slices = self.in_a_row(streams)
        names = self.names(words)
        question = self.question(self.question_norm(text)) + names + self.linked(names, streams)
        question = question + self.look(question.astype(self.dtype), tokens)[0]
        probes = self.condense(question, word_mask).astype(self.dtype)
        kept = None
        if rngs is not None and self.config.dropout > 0:
            rate = 1 - self.config.dropout
            videos, questions, _, width = probes.shape
            shape = (self.config.layers, 3, videos, questions, 1, width)
            kept = jax.random.bernoulli(rngs.dropout(), rate, shape) / rate
        graphdef, state = nnx.split(self.layers)

        def run(probes, layer):
            state, kept = layer
            return nnx.merge(graphdef, state)(probes, tokens, kept)

        probes, weights = jax.lax.scan(run, probes, (state, kept))
        state = self.state_norm(probes[:, :, 0])
        named = self.state(state) @ answer_names.astype(jnp.float32).T * state.shape[-1] ** -0.5
        return (
            named + self.choice(state),
            weights.importance[-1],
            [weights.tokens[-1][..., part] for part in slices],
        )


def _unit(x: jax.Array) -> jax.Array:
    """Vectors of length one, in float32; zeros stay zeros."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.square(x).sum(-1, keepdims=True) + 1e-6)
