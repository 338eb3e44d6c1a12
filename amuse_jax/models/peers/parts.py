"""Layers that the peers share, with the equations and the initial weights of PyTorch's modules."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from amuse_jax.models import dense, hierarchy, swin_v2
from amuse_jax.models.attention import multihead

layer_norm = hierarchy.layer_norm  # epsilon 1e-5 and two-pass variance, as in PyTorch


def uniform(limit: float) -> nnx.Initializer:
    """Return an initialiser that draws from U(-limit, limit)."""

    def draw(key, shape, dtype=jnp.float32, out_sharding=None):
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return draw


def linear(
    width_in: int, width_out: int, rngs: nnx.Rngs, fan_in: int = 0, use_bias: bool = True
) -> dense.Linear:
    """Return a linear layer with PyTorch's initial weights, U(-1/sqrt(fan_in), 1/sqrt(fan_in)).

    Args:
      width_in, width_out: channels before and after.
      rngs: random keys of the weights.
      fan_in: sets the limit of the initial weights and biases; 0 = `width_in`.
      use_bias: whether the layer has a bias.
    """
    draw = uniform((fan_in or width_in) ** -0.5)
    return dense.Linear(
        width_in, width_out, kernel_init=draw, bias_init=draw, use_bias=use_bias, rngs=rngs
    )


def dropout(x: Array, rate: float, rngs: nnx.Rngs | None) -> Array:
    """Zero elements of x with probability `rate` and scale the others; None = no dropout."""
    if rngs is None or not rate:
        return x
    keep = jax.random.bernoulli(rngs.dropout(), 1 - rate, x.shape)
    return jnp.where(keep, x / (1 - rate), 0)


def drop_path(before: Array, after: Array, rate: float, rngs: nnx.Rngs | None) -> Array:
    """Stochastic depth: undo the step from `before` to `after` in some examples.

    Args:
      before, after: [b, ...], tokens before and after a residual branch.
      rate: probability that an example skips the branch; the branch is scaled by 1 / (1 - rate) in
        the others.
      rngs: random keys; None = every example takes the branch, unscaled.
    """
    if rngs is None or not rate:
        return after
    keep = jax.random.bernoulli(rngs.dropout(), 1 - rate, (len(before),) + (1,) * (before.ndim - 1))
    return before + jnp.where(keep, (after - before) / (1 - rate), 0)


def run_block(
    block: tuple[nnx.Module, Array, bool], tokens: Array, rate: float, rngs: nnx.Rngs | None
) -> Array:
    """Run a block of a tower, with stochastic depth of both halves: [b, n, d] -> [b, n, d].

    Args:
      block: an element of hierarchy.Stage.separate().
      tokens: [b, n, d].
      rate, rngs: see `drop_path`.
    """
    layer, *options = block
    tokens = drop_path(tokens, layer.attend(tokens, *options), rate, rngs)
    return drop_path(tokens, layer.transform(tokens), rate, rngs)


def exchange(query: Array, other: Array, strength: Array | float = 1.0) -> Array:
    """Return softmax(strength * X Y^T) Y: attention without projections and without 1/sqrt(d).

    Args:
      query: [..., n, d] X.
      other: [..., m, d] Y.
      strength: factor of the logits, broadcastable to [..., n, m].
    Returns:
      [..., n, d]. The softmax is computed in float32: its logits are of order d.
    """
    return multihead.weighted_mean(multihead.scores(query, other) * strength, other)


class MultiheadAttention(nnx.Module):
    """PyTorch's nn.MultiheadAttention: one packed projection of queries, keys and values, biases.

    Dropout acts on the attention weights.

    Raises:
      ValueError: the heads do not divide the channels.
    """

    def __init__(self, width: int, heads: int, dropout: float, rngs: nnx.Rngs):
        if width % heads:
            raise ValueError(f'{width} channels do not divide into {heads} heads')
        self.heads, self.dropout = heads, dropout
        xavier = uniform(math.sqrt(6 / (4 * width)))  # of the packed (3d, d) matrix
        self.qkv = dense.Linear(width, 3 * width, kernel_init=xavier, rngs=rngs)
        self.out = dense.Linear(width, width, kernel_init=uniform(width**-0.5), rngs=rngs)

    def __call__(
        self, query: Array, memory: Array, rngs: nnx.Rngs | None = None
    ) -> tuple[Array, Array]:
        """Let `query` attend to `memory`, which gives both keys and values.

        Args:
          query: [..., n, d].
          memory: [..., m, d]; leading axes broadcast.
          rngs: random keys for dropout; None = no dropout.
        Returns:
          The attention output [..., n, d], and the weights [..., n, m], averaged over the heads.
        """
        width = query.shape[-1]
        kernel, bias = self.qkv.kernel[...], self.qkv.bias[...]
        query = dense.matmul(query, kernel[:, :width]) + bias[:width]
        key_value = dense.matmul(memory, kernel[:, width:]) + bias[width:]
        query, key, value = (
            multihead.split_heads(x, self.heads) for x in (query, *jnp.split(key_value, 2, -1))
        )
        scores = multihead.scores(query, key) * query.shape[-1] ** -0.5
        weights = dropout(jax.nn.softmax(scores, axis=-1), self.dropout, rngs)
        attended = multihead.join_heads(weights.astype(value.dtype) @ value)
        return self.out(attended), weights.mean(-3)


class FeedForward(nnx.Module):
    """LN(x + drop(W2 drop(relu(W1 x)))), the second half of a post-norm layer."""

    def __init__(self, width: int, hidden: int, dropout: float, rngs: nnx.Rngs):
        self.dropout = dropout
        self.inner = linear(width, hidden, rngs)
        self.outer = linear(hidden, width, rngs)
        self.norm = layer_norm(width, rngs)

    def __call__(self, x: Array, rngs: nnx.Rngs | None = None) -> Array:
        """[..., d] -> [..., d]."""
        hidden = dropout(jax.nn.relu(self.inner(x)), self.dropout, rngs)
        return self.norm(x + dropout(self.outer(hidden), self.dropout, rngs))


class AttendAndFeed(nnx.Module):
    """Multi-head attention without a residual addition, then a FeedForward."""

    def __init__(self, width: int, heads: int, dropout: float, rngs: nnx.Rngs):
        self.attention = MultiheadAttention(width, heads, dropout, rngs)
        self.feed = FeedForward(width, width, dropout, rngs)

    def __call__(
        self, query: Array, memory: Array, rngs: nnx.Rngs | None = None
    ) -> tuple[Array, Array]:
        """Return the layer's output and the attention weights; see MultiheadAttention."""
        attended, weights = self.attention(query, memory, rngs)
        return self.feed(attended, rngs), weights


class GroupedLinear(nnx.Module):
    """PyTorch's grouped 1x1 convolution without bias: groups of channels, each with its own kernel.

    Output channels of group j depend on the input channels of group j alone; groups are contiguous.
    """

    def __init__(self, width_in: int, width_out: int, groups: int, rngs: nnx.Rngs):
        if width_in % groups or width_out % groups:
            raise ValueError(f'{width_in} and {width_out} channels do not divide into {groups}')
        shape = groups, width_in // groups, width_out // groups
        self.kernel = nnx.Param(uniform(shape[1] ** -0.5)(rngs.params(), shape))

    def __call__(self, x: Array) -> Array:
        """[..., width_in] -> [..., width_out]."""
        groups, width, _ = self.kernel.shape
        x = x.reshape(*x.shape[:-1], groups, width)
        x = jnp.einsum('...gi,gio->...go', x, self.kernel[...])
        return x.reshape(*x.shape[:-2], -1)


def images(frames: Array) -> Array:
    """Normalise uint8 frames, and join the first two axes: [b, t, h, w, 3] -> [b * t, h, w, 3]."""
    if frames.dtype == jnp.uint8:
        frames = swin_v2.normalise(frames)
    return frames.reshape(-1, *frames.shape[2:])


def normal_example(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return float32 numbers from N(0, 1) for an example input."""
    return rng.normal(size=shape).astype(np.float32)
