"""The text tower: BERT's encoder (Devlin et al. 2019) with post-norm and learned positions.

tower = TextTower(TextConfig(vocab_size=30522, max_words=32), rngs=nnx.Rngs(0))
tokens = tower(words, mask)
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from amuse_jax.models import remat
from amuse_jax.models.gelu import gelu

DRAW = nnx.initializers.truncated_normal(0.02)  # BERT's initialiser for embedding tables


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """Sizes of a tower; the defaults are those of BERT-base.

    Attributes:
      vocab_size: number of word pieces, the rows of the word table.
      max_words: longest question in word pieces, the rows of the position table.
      width: channels of a token.
      depth, heads: number of layers, and of attention heads per layer.
      mlp_width: hidden channels of a layer's MLP.
      epsilon: added to the variance in layer norms; RoBERTa uses 1e-5.
    """

    vocab_size: int
    max_words: int
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_width: int = 3072
    epsilon: float = 1e-12


def layer_norm(config: TextConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """Return a LayerNorm that computes in float32, with two-pass variance as in PyTorch."""
    return nnx.LayerNorm(
        config.width,
        epsilon=config.epsilon,
        use_fast_variance=False,
        dtype=jnp.float32,
        rngs=rngs,
    )


class TextLayer(nnx.Module):
    """Self-attention and an MLP with erf GELU, each with a norm after the residual addition."""

    def __init__(self, config: TextConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        width = config.width
        self.heads = config.heads
        self.qkv = nnx.Linear(width, 3 * width, dtype=dtype, rngs=rngs)
        self.out = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        self.attention_norm = layer_norm(config, rngs)
        self.inner = nnx.Linear(width, config.mlp_width, dtype=dtype, rngs=rngs)
        self.outer = nnx.Linear(config.mlp_width, width, dtype=dtype, rngs=rngs)
        self.mlp_norm = layer_norm(config, rngs)

    def __call__(self, tokens: Array, mask: Array) -> Array:
        """(b, n, d), (b, n) bool -> (b, n, d)."""
        tokens = self.attention_norm(tokens + self._attend(tokens, mask)).astype(tokens.dtype)
        x = self.outer(gelu(self.inner(tokens)))
        return self.mlp_norm(tokens + x).astype(tokens.dtype)

    def _attend(self, tokens: Array, mask: Array) -> Array:
        batch, count, width = tokens.shape
        x = self.qkv(tokens).reshape(batch, count, 3, self.heads, width // self.heads)
        query, key, value = x.transpose(2, 0, 3, 1, 4)
        query = query * query.shape[-1] ** -0.5
        scores = jnp.einsum('bhqd,bhkd->bhqk', query, key, preferred_element_type=jnp.float32)
        scores = jnp.where(mask[:, None, None, :], scores, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
        x = jnp.einsum('bhqk,bhkd->bhqd', weights, value)
        return self.out(x.transpose(0, 2, 1, 3).reshape(batch, count, width))


class TextTower(nnx.Module):
    """The text tower: word ids -> tokens.

    Padding (mask False) does not change the tokens of the words, wherever it stands.

    Differs from Hugging Face's BertModel: positions count only words, which makes no difference for
    padding at the end; every token has the first token type; and there is no pooler.
    """

    def __init__(
        self,
        config: TextConfig,
        *,
        rngs: nnx.Rngs,
        dtype: jnp.dtype = jnp.float32,
        remat_policy: str = 'everything',
    ):
        if config.width % config.heads:
            raise ValueError(f'{config.width} channels do not divide into {config.heads} heads')
        self.config, self.dtype, self.remat_policy = config, dtype, remat_policy
        shape = (config.vocab_size, config.width)
        self.words = nnx.Embed(*shape, embedding_init=DRAW, dtype=dtype, rngs=rngs)
        shape = (config.max_words, config.width)
        self.positions = nnx.Embed(*shape, embedding_init=DRAW, dtype=dtype, rngs=rngs)
        self.token_type = nnx.Param(DRAW(rngs.params(), (config.width,)))
        self.norm = layer_norm(config, rngs)
        self.stack = nnx.vmap(lambda rngs: TextLayer(config, dtype, rngs))(rngs.split(config.depth))

    def embed(self, words: Array, mask: Array) -> Array:
        """Return the tokens that enter the first layer: (b, n) ids, (b, n) bool -> (b, n, d).

        Raises:
          ValueError: there are more words than positions.
        """
        count, limit = words.shape[-1], self.config.max_words
        if count > limit:
            raise ValueError(f'{count} words per question; the tower has {limit} positions')
        place = jnp.maximum(jnp.cumsum(mask, axis=-1) - 1, 0)
        x = self.words(words) + self.positions(place) + self.token_type[...]
        return self.norm(x).astype(self.dtype)

    def layers(self) -> tuple[nnx.GraphDef, nnx.State]:
        """Return all layers; the leaves of the state are stacked (depth, ...)."""
        return nnx.split(self.stack)

    def run_layers(
        self, graphdef: nnx.GraphDef, state: nnx.State, tokens: Array, mask: Array
    ) -> Array:
        """Run the consecutive layers in `state`: (b, n, d), (b, n) bool -> (b, n, d)."""

        def run_layer(x, layer):
            return nnx.merge(graphdef, layer)(x, mask)

        run = remat.rematerialise(run_layer, self.remat_policy)
        return jax.lax.scan(lambda x, layer: (run(x, layer), None), tokens, state)[0]

    def __call__(self, words: Array, mask: Array) -> Array:
        """Run the whole tower: (b, n) word ids, (b, n) bool -> (b, n, d)."""
        return self.run_layers(*self.layers(), self.embed(words, mask), mask)

    def embed_phrases(self, phrases: Array, mask: Array) -> Array:
        """Return the mean of each phrase's rows in the word table; zeros for an empty phrase.

        Args:
          phrases: (n, l) word ids.
          mask: (n, l) bool, False = padding.
        Returns:
          (n, d).
        """
        share = mask / jnp.maximum(jnp.sum(mask, axis=-1, keepdims=True), 1)
        return jnp.einsum('nl,nld->nd', share.astype(self.dtype), self.words(phrases))
