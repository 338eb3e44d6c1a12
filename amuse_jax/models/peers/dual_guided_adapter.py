"""DG-SCT's adapter: the other stream weighs the channels and the positions of the own stream."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from amuse_jax.models.peers import parts


@dataclasses.dataclass(frozen=True)
class AdapterConfig:
    """Sizes and switches of the adapters; the defaults are those of the released train.sh.

    Attributes:
      latents: learned tokens that gather what the other stream has.
      reduction: factor by which the bottleneck is narrower.
      groups: groups of the bottleneck's 1x1 convolutions.
      audio_gate: whether the audio stream's adapters have a gate, as the visual stream's always
        have. In the release they have none, so the audio tower is disturbed from the first step.
      alpha, beta: factors of the channel weights and of the position weights.
      base: added to both. The release has 1 - alpha; the paper's Eq. 6 has 1.
    """

    latents: int = 2
    reduction: int = 8
    groups: int = 4
    audio_gate: bool = False
    alpha: float = 0.3
    beta: float = 0.05
    base: float = 0.7


class DualGuidedAdapter(nnx.Module):
    """What one stream (X: n tokens of width d) takes from the other (Y: m tokens of width c).

      Y' = fc(mix(Y)),  L' = L + softmax(L Y'^T) Y',  X' = X + g' softmax(X L'^T) L',  u = mean Y'
      C = sigmoid(W_c relu(W_b mean(relu(A_1 u) relu(V_1 X'))))              channels
      h = w relu(V_2 ((C + 1) X')) relu(A_2 u),  S = sigmoid(h)              positions
      out = g LN(up(relu(down(LN((alpha C + beta S + base) X')))))

    `mix` is a linear map from the m tokens to n tokens.
    """

    def __init__(
        self,
        own: tuple[int, int],
        other: tuple[int, int],
        config: AdapterConfig,
        has_gate: bool,
        rngs: nnx.Rngs,
    ):
        self.config = config
        (tokens, width), (other_tokens, other_width) = own, other
        hidden = width // config.reduction
        self.mix = parts.linear(other_tokens, tokens, rngs)
        self.project = parts.linear(other_width, width, rngs)
        self.latents = nnx.Param(jnp.zeros((config.latents, width)))
        self.exchange_gate = nnx.Param(jnp.zeros((1,)))
        self.gate = nnx.Param(jnp.zeros((1,))) if has_gate else None
        self.other_channels = parts.linear(width, width, rngs)
        self.own_channels = parts.linear(width, width, rngs)
        self.channel_inner = parts.linear(width, width // 2, rngs)
        self.channel_outer = parts.linear(width // 2, width, rngs)
        self.own_positions = parts.linear(width, width // 2, rngs)
        self.other_positions = parts.linear(width, width // 2, rngs)
        self.position = parts.linear(width // 2, 1, rngs)
        self.norm_before = parts.layer_norm(width, rngs)
        self.down = parts.GroupedLinear(width, hidden, config.groups, rngs)
        self.up = parts.GroupedLinear(hidden, width, config.groups, rngs)
        self.norm_after = parts.layer_norm(width, rngs)

    def __call__(self, x: Array, other: Array) -> tuple[Array, Array]:
        """Return what x takes from the other stream, and the weights of its tokens.

        Args:
          x: [b, n, d].
          other: [b, m, c].
        Returns:
          [b, n, d], and softmax(tanh(h)) over the tokens, [b, n].
        """
        config = self.config
        other = self.project(jnp.swapaxes(self.mix(jnp.swapaxes(other, 1, 2)), 1, 2))
        latents = self.latents[...] + parts.exchange(self.latents[...], other)
        x = x + self.exchange_gate[...] * parts.exchange(x, latents)
        guide = other.mean(1, keepdims=True)  # [b, 1, d]

        met = jax.nn.relu(self.other_channels(guide)) * jax.nn.relu(self.own_channels(x))
        inner = jax.nn.relu(self.channel_inner(met.mean(1, keepdims=True)))
        channels = jax.nn.sigmoid(self.channel_outer(inner))
        own = jax.nn.relu(self.own_positions(x * (channels + 1)))
        scores = self.position(own * jax.nn.relu(self.other_positions(guide)))  # [b, n, 1]
        attention = jax.nn.softmax(jnp.tanh(scores[..., 0]), axis=-1)

        weights = config.alpha * channels + config.beta * jax.nn.sigmoid(scores) + config.base
        x = self.up(jax.nn.relu(self.down(self.norm_before(x * weights))))
        x = self.norm_after(x)
        return (x if self.gate is None else self.gate[...] * x), attention
