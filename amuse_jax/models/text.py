"""The text tower: BERT's encoder (Devlin et al. 2019) with post-norm and learned positions.

tower = TextTower(TextConfig(vocab_size=30522, max_words=32), rngs=nnx.Rngs(0))
tokens = tower(words, mask)
"""

import dataclasses
import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from amuse_jax.models import dense, remat
from amuse_jax.models.attention import multihead
from amuse_jax.models.gelu import gelu
from amuse_jax.models.layer_norm import LayerNorm

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


class TextLayer(nnx.Module):
    """Self-attention and an MLP with erf GELU, each with a norm after the residual addition."""

    def __init__(self, config: TextConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        width = config.width
        self.heads = config.heads
        self.qkv = dense.Linear(width, 3 * width, dtype=dtype, rngs=rngs)
        self.out = dense.Linear(width, width, dtype=dtype, rngs=rngs)
        self.attention_norm = LayerNorm(config.width, config.epsilon, rngs)
        self.inner = dense.Linear(width, config.mlp_width, dtype=dtype, rngs=rngs)
        self.outer = dense.Linear(config.mlp_width, width, dtype=dtype, rngs=rngs)
        self.mlp_norm = LayerNorm(config.width, config.epsilon, rngs)

    def __call__(self, tokens: Array, mask: Array) -> Array:
        """(b, n, d), (b, n) bool -> (b, n, d)."""
        x = checkpoint_name(self._attend(tokens, mask), remat.OUT)
        tokens = self.attention_norm(tokens + x).astype(tokens.dtype)
        x = self.outer(gelu(checkpoint_name(self.inner(tokens), remat.INNER)))
        x = checkpoint_name(x, remat.OUTER)
        return self.mlp_norm(tokens + x).astype(tokens.dtype)

    def _attend(self, tokens: Array, mask: Array) -> Array:
        qkv = checkpoint_name(self.qkv(tokens), remat.QKV)
        query, key, value = jnp.split(qkv, 3, axis=-1)
        return self.out(multihead.attend_heads(query, key, value, self.heads, mask))


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
        self.norm = LayerNorm(config.width, config.epsilon, rngs)
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

    def unrolled(self) -> list[Callable[[Array, Array], Array]]:
        """Return a function for each layer, (b, n, d), (b, n) bool -> (b, n, d)."""
        graphdef, state = nnx.split(self.stack)

        def function(place):
            layer = jax.tree.map(operator.itemgetter(place), state)
            layer = remat.cast_products(layer, self.dtype)
            run = self._rematerialised(graphdef, in_scan=False)
            return lambda tokens, mask: run(tokens, layer, mask)

        return [function(place) for place in range(self.config.depth)]

    def __call__(self, words: Array, mask: Array) -> Array:
        """Run the whole tower in a scan: (b, n) word ids, (b, n) bool -> (b, n, d)."""
        graphdef, state = nnx.split(self.stack)
        run = self._rematerialised(graphdef, in_scan=True)
        tokens = self.embed(words, mask)
        return jax.lax.scan(lambda x, layer: (run(x, layer, mask), None), tokens, state)[0]

    def _rematerialised(self, graphdef, in_scan):
        def run_layer(tokens, layer, mask):
            return nnx.merge(graphdef, layer)(tokens, mask)

        return remat.rematerialise(run_layer, self.remat_policy, in_scan)

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
