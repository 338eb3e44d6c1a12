"""A tower of four stages of windowed blocks, as Swin, Swin-V2 and HTS-AT are built.

A stage's blocks are one stacked module (leading axis: depth) and run in one scan, so compile time
does not grow with depth. A tower can be run in pieces, because Amuse meets it in the middle:
`stem`, then the blocks of stage 3 (`meeting`) a few at a time with adapters between them, then
`tail`.
"""

import functools
import math
import operator
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from amuse_jax.models import cpu, remat
from amuse_jax.models.gelu import gelu
from amuse_jax.models.windows import WindowMap

EPSILON = 1e-5  # of layer norms, as in the originals


@flax.struct.dataclass
class TowerOutput:
    """What a tower makes of its input.

    Attributes:
      pooled: (b, d4) mean of `tokens`.
      tokens: (b, n4, d4) after the final norm.
      stages: per stage (b, n_i, d_i) tokens after its blocks, before merging and final norm.
    """

    pooled: Array
    tokens: Array
    stages: tuple[Array, ...]


def layer_norm(width: int, rngs: nnx.Rngs, **options) -> nnx.LayerNorm:
    """A LayerNorm in float32 throughout, with two-pass variance as in PyTorch."""
    return nnx.LayerNorm(
        width, epsilon=EPSILON, use_fast_variance=False, dtype=jnp.float32, rngs=rngs, **options
    )


class Mlp(nnx.Module):
    """Two linear layers around an erf GELU."""

    def __init__(self, width: int, hidden: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.inner = nnx.Linear(width, hidden, dtype=dtype, rngs=rngs)
        self.outer = nnx.Linear(hidden, width, dtype=dtype, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.outer(gelu(self.inner(x)))


class PatchEmbedding(nnx.Module):
    """A convolution whose kernel is as large as its stride, as one matrix product, then a norm.

    The kernel's rows run over (row in patch, column in patch, channel).
    """

    def __init__(self, patch: int, channels: int, width: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.patch, self.dtype = patch, dtype
        self.projection = nnx.Linear(patch * patch * channels, width, dtype=dtype, rngs=rngs)
        self.norm = layer_norm(width, rngs)

    def __call__(self, images: Array) -> Array:
        """(b, height, width, channels) -> (b, height/patch * width/patch, d)."""
        batch, height, width, channels = images.shape
        side = self.patch
        x = images.reshape(batch, height // side, side, width // side, side, channels)
        x = x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, side * side * channels)
        return self.norm(self.projection(x)).astype(self.dtype)


def gather_quads(tokens: Array, size: tuple[int, int]) -> Array:
    """Puts each 2x2 square of tokens side by side: (b, h*w, d) -> (b, h*w/4, 4d).

    Order of the four as in the originals: down the left column, then down the right.

    Raises:
      ValueError: a side of the map is odd.
    """
    height, width = size
    if height % 2 or width % 2:
        raise ValueError(
            f'a map of {height}x{width} tokens cannot be merged: both sides must be even'
        )
    batch, _, depth = tokens.shape
    x = tokens.reshape(batch, height // 2, 2, width // 2, 2, depth)
    return x.transpose(0, 1, 3, 4, 2, 5).reshape(batch, -1, 4 * depth)


class Stage(nnx.Module):
    """Merging (but for the first stage), then `depth` alike blocks.

    A block is called as `block(tokens, bias, shifted)` with `bias = block.position_bias()`.
    """

    def __init__(
        self,
        window_map: WindowMap,
        depth: int,
        block: Callable[[nnx.Rngs], nnx.Module],
        merge: nnx.Module | None,
        kept: str,
        rngs: nnx.Rngs,
    ):
        self.window_map, self.kept = window_map, kept
        self.merge = merge
        self.blocks = nnx.vmap(block)(rngs.split(depth))

    def enter(self, tokens: Array) -> Array:
        """Tokens of the stage before -> tokens entering this stage's blocks."""
        return tokens if self.merge is None else self.merge(tokens)

    def __call__(self, tokens: Array) -> Array:
        """All blocks: (b, n, d) -> (b, n, d)."""
        return self.run(*nnx.split(self.blocks), tokens, 0)

    def run(
        self, graphdef: nnx.GraphDef, state: nnx.State, tokens: Array, first: int | Array
    ) -> Array:
        """Runs consecutive blocks of this stage.

        Args:
          graphdef, state: of `nnx.split(self.blocks)`; `state` may hold any n of the blocks.
          tokens: (b, height*width, d) of the stage's map.
          first: place of the first of them in the stage; odd places are shifted. May be traced.
        Returns:
          (b, height*width, d).
        """
        scanned = state, _position_biases(graphdef, state)
        return self._scan(graphdef, lambda one: one, scanned, tokens, first)

    def run_some(
        self,
        graphdef: nnx.GraphDef,
        state: nnx.State,
        tokens: Array,
        first: int | Array,
        count: int,
    ) -> Array:
        """As `run`, for `count` of the stage's blocks, where they are taken one by one out of all.

        A part of the stack would be a copy of its weights. In return a gradient towards the weights
        is as large as all of them for each block: this is for frozen ones.

        Args:
          graphdef, state: of all blocks.
          tokens, first: as for `run`.
          count: how many.
        """

        def part(leaf):  # what the biases need of it is small; the rest of this copy is never made
            return jax.lax.dynamic_slice_in_dim(leaf, first, count)

        def at(one):
            place, bias = one
            index = functools.partial(jax.lax.dynamic_index_in_dim, index=place, keepdims=False)
            return jax.tree.map(index, state), bias

        biases = _position_biases(graphdef, jax.tree.map(part, state))
        return self._scan(graphdef, at, (first + jnp.arange(count), biases), tokens, first)

    def _scan(self, graphdef, at, scanned, tokens, first):
        """Blocks one after the other; `at` makes of each one of `scanned` its state and bias."""

        def run_block(tokens, one, shifted=False):
            state, bias = at(one)

            def run(tokens):
                return nnx.merge(graphdef, state)(tokens, bias, shifted)

            inner_bytes = 4 * math.prod(tokens.shape[1:]) * tokens.dtype.itemsize  # of the MLP
            return cpu.in_chunks(run, tokens, inner_bytes)

        run_block = remat.keeping(self.kept, run_block)
        if not self.window_map.shifts:
            return jax.lax.scan(lambda x, one: (run_block(x, one), None), tokens, scanned)[0]

        odd = first % 2 == 1

        def run_pair(tokens, pair):
            for place, shifted in enumerate((odd, odd ^ True)[: len(jax.tree.leaves(pair)[0])]):
                tokens = run_block(tokens, jax.tree.map(operator.itemgetter(place), pair), shifted)
            return tokens, None

        count = len(jax.tree.leaves(scanned)[0])
        whole = count // 2
        pairs, rest = (
            jax.tree.map(operator.itemgetter(part), scanned)
            for part in (slice(2 * whole), slice(2 * whole, None))
        )
        pairs = jax.tree.map(lambda leaf: leaf.reshape(whole, 2, *leaf.shape[1:]), pairs)
        if whole:
            tokens, _ = jax.lax.scan(run_pair, tokens, pairs)
        if count % 2:
            tokens, _ = run_pair(tokens, rest)
        return tokens


def _position_biases(graphdef: nnx.GraphDef, state: nnx.State) -> Array:
    """(n, heads, m, m) of the n blocks of `state`."""
    return jax.vmap(lambda block: nnx.merge(graphdef, block).position_bias())(state)


class Tower(nnx.Module):
    """Four stages and a final norm; a subclass sets `dtype`, calls `build` and defines `embed`.

    Attributes:
      stages: nnx.List of four Stage.
      dtype: of the compute; parameters are float32.
      width_meeting, width_out: channels of stages 3 and 4.
    """

    def build(
        self,
        config,
        sides: tuple[int, int],
        block: Callable,
        merge: type,
        kept: str,
        rngs: nnx.Rngs,
    ):
        """Creates the stages and the final norm.

        Args:
          config: with patch, width, depths, heads and window.
          sides: height and width of the picture in pixels.
          block: (width, heads, window_map, stage) -> a function from rngs to a block.
          merge: module built as merge(size before, width before, dtype, rngs).
          kept: of remat.POLICIES, of each block for its gradient.
        Raises:
          ValueError: patch, merging or heads do not divide what they must.
        """
        if any(side % config.patch for side in sides):
            raise ValueError(
                f'a side of {sides} pixels is no multiple of the patch, {config.patch}'
            )
        size, stages = tuple(side // config.patch for side in sides), []
        for i, (depth, heads) in enumerate(zip(config.depths, config.heads, strict=True)):
            width = config.width * 2**i
            if width % heads:
                raise ValueError(
                    f'stage {i + 1}: {width} channels do not divide into {heads} heads'
                )
            if i and any(side % 2 for side in size):
                raise ValueError(
                    f'stage {i} has {size} tokens: an odd side cannot be merged in pairs'
                )
            merging = merge(size, width // 2, self.dtype, rngs) if i else None
            size = tuple(side // 2 for side in size) if i else size
            window_map = WindowMap.of(size, config.window)
            stages.append(
                Stage(window_map, depth, block(width, heads, window_map, i), merging, kept, rngs)
            )
        self.stages = nnx.List(stages)
        self.norm = layer_norm(width, rngs)
        self.width_meeting, self.width_out = width // 2, width

    def embed(self, x: Array) -> Array:
        """Input of the tower -> tokens entering stage 1."""
        raise NotImplementedError

    def stem(self, x: Array) -> Array:
        """Input of the tower -> (b, n3, d3), the tokens entering stage 3."""
        tokens = self.stages[0](self.embed(x))
        tokens = self.stages[1](self.stages[1].enter(tokens))
        return self.stages[2].enter(tokens)

    def meeting(self) -> tuple[nnx.GraphDef, nnx.State]:
        """Stage 3's blocks; the leaves of the state are stacked (depth3, ...)."""
        return nnx.split(self.stages[2].blocks)

    def run_meeting(
        self, graphdef: nnx.GraphDef, state: nnx.State, tokens: Array, first: int | Array
    ) -> Array:
        """Runs the blocks of `state`, consecutive ones of stage 3, the first at place `first`."""
        return self.stages[2].run(graphdef, state, tokens, first)

    def tail(self, tokens: Array) -> Array:
        """Tokens after stage 3's blocks -> (b, n4, d4): stage 4 and the final norm."""
        tokens = self.stages[3](self.stages[3].enter(tokens))
        return self.norm(tokens).astype(self.dtype)

    def __call__(self, x: Array) -> TowerOutput:
        tokens, stages = self.embed(x), []
        for stage in self.stages:
            tokens = stage(stage.enter(tokens))
            stages.append(tokens)
        tokens = self.norm(tokens).astype(self.dtype)
        return TowerOutput(pool(tokens), tokens, tuple(stages))

    def blocks(self, x: Array) -> tuple[tuple[Array, ...], ...]:
        """The tokens (b, n_i, d_i) after every block of every stage; compile time grows with
        depth."""
        tokens, found = self.embed(x), []
        for stage in self.stages:
            tokens, inside = stage.enter(tokens), []
            graphdef, state = nnx.split(stage.blocks)
            for place in range(len(jax.tree.leaves(state)[0])):
                one = jax.tree.map(operator.itemgetter(slice(place, place + 1)), state)
                tokens = stage.run(graphdef, one, tokens, place)
                inside.append(tokens)
            found.append(tuple(inside))
        return tuple(found)


def pool(tokens: Array) -> Array:
    """Mean over tokens, summed in float32: (..., n, d) -> (..., d) in the tokens' dtype."""
    return jnp.mean(tokens, axis=-2, dtype=jnp.float32).astype(tokens.dtype)
