"""The text tower: BERT's encoder (Devlin et al. 2019), post-norm, learned positions.

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

DRAW = nnx.initializers.truncated_normal(0.02)  # of BERT's tables


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """Sizes of a tower; the defaults are BERT-base's.

    Attributes:
      vocab_size: rows of the word table.
      max_words: longest question, in word pieces; rows of the position table.
      width, depth, heads, mlp_width: of the layers.
      epsilon: of the layer norms; RoBERTa's is 1e-5.
    """

    vocab_size: int
    max_words: int
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_width: int = 3072
    epsilon: float = 1e-12


def layer_norm(config: TextConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    return nnx.LayerNorm(
        config.width,
        epsilon=config.epsilon,
        use_fast_variance=False,
        dtype=jnp.float32,
        rngs=rngs,
    )


class TextLayer(nnx.Module):
    """Self-attention and an erf-GELU MLP, each added and then normed."""

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
    """Words -> tokens. Padding (mask False) changes no token of a word, wherever it stands.

    Differs from Hugging Face's BertModel: positions count words only (the same for padding at the
    end), token types are always the first, and there is no pooler.
    """

    def __init__(
        self,
        config: TextConfig,
        *,
        rngs: nnx.Rngs,
        dtype: jnp.dtype = jnp.float32,
        kept: str = 'everything',
    ):
        if config.width % config.heads:
            raise ValueError(f'{config.width} channels do not divide into {config.heads} heads')
        self.config, self.dtype, self.kept = config, dtype, kept
        shape = (config.vocab_size, config.width)
        self.words = nnx.Embed(*shape, embedding_init=DRAW, dtype=dtype, rngs=rngs)
        shape = (config.max_words, config.width)
        self.positions = nnx.Embed(*shape, embedding_init=DRAW, dtype=dtype, rngs=rngs)
        self.token_type = nnx.Param(DRAW(rngs.params(), (config.width,)))
        self.norm = layer_norm(config, rngs)
        self.stack = nnx.vmap(lambda rngs: TextLayer(config, dtype, rngs))(rngs.split(config.depth))

    def embed(self, words: Array, mask: Array) -> Array:
        """(b, n) word ids, (b, n) bool -> (b, n, d) tokens entering the first layer.

        Raises:
          ValueError: more words than there are positions.
        """
        count, limit = words.shape[-1], self.config.max_words
        if count > limit:
            raise ValueError(f'{count} words per question; the tower has {limit} positions')
        place = jnp.maximum(jnp.cumsum(mask, axis=-1) - 1, 0)
        x = self.words(words) + self.positions(place) + self.token_type[...]
        return self.norm(x).astype(self.dtype)

    def layers(self) -> tuple[nnx.GraphDef, nnx.State]:
        """All layers; the leaves of the state are stacked (depth, ...)."""
        return nnx.split(self.stack)

    def run_layers(
        self, graphdef: nnx.GraphDef, state: nnx.State, tokens: Array, mask: Array
    ) -> Array:
        """Runs the layers of `state`, any consecutive ones: (b, n, d), (b, n) bool -> (b, n, d)."""

        run = remat.keeping(self.kept, lambda x, layer: nnx.merge(graphdef, layer)(x, mask))
        return jax.lax.scan(lambda x, layer: (run(x, layer), None), tokens, state)[0]

    def __call__(self, words: Array, mask: Array) -> Array:
        """(b, n) word ids, (b, n) bool -> (b, n, d)."""
        return self.run_layers(*self.layers(), self.embed(words, mask), mask)

    def words_of(self, phrases: Array, mask: Array) -> Array:
        """Mean of each phrase's word embeddings, straight from the table (zeros if it has no word).

        Args:
          phrases: (n, l) word ids.
          mask: (n, l) bool.
        Returns:
          (n, d).
        """
        share = mask / jnp.maximum(jnp.sum(mask, axis=-1, keepdims=True), 1)
        return jnp.einsum('nl,nld->nd', share.astype(self.dtype), self.words(phrases))
