"""A tower of four stages of windowed blocks: the structure of Swin, Swin-V2 and HTS-AT.

The blocks of a stage are one stacked module (leading axis: depth) and run in one scan, so the
compile time does not grow with the depth. A tower can also run in parts, because Amuse puts
adapters between the blocks of stage 3: `stem` runs up to stage 3, `Stage.unrolled` gives its blocks
one by one, and `tail` runs the rest.
"""

import math
import operator
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from amuse_jax.models import cpu, dense, mlp_tpu, remat
from amuse_jax.models.gelu import gelu
from amuse_jax.models.layer_norm import LayerNorm
from amuse_jax.models.window_map import WindowMap

EPSILON = 1e-5  # added to the variance in layer norms, as in the originals


@flax.struct.dataclass
class TowerOutput:
    """The output of a tower.

    Attributes:
      pooled: (b, d4) mean of `tokens`.
      tokens: (b, n4, d4) tokens after the final norm.
      stages: tokens (b, n_i, d_i) after the blocks of each stage, before merging or the final norm.
    """

    pooled: Array
    tokens: Array
    stages: tuple[Array, ...]


def layer_norm(width: int, rngs: nnx.Rngs, **options) -> LayerNorm:
    """Return a LayerNorm with the epsilon of the originals."""
    return LayerNorm(width, EPSILON, rngs, **options)


class Mlp(nnx.Module):
    """Two linear layers with an erf GELU between them."""

    def __init__(self, width: int, hidden: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.inner = dense.Linear(width, hidden, dtype=dtype, rngs=rngs)
        self.outer = dense.Linear(hidden, width, dtype=dtype, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """(..., d) -> (..., d)."""
        hidden = checkpoint_name(self.inner(x), remat.INNER)
        return checkpoint_name(self.outer(gelu(hidden)), remat.OUTER)


def add_mlp(tokens: Array, mlp: Mlp, norm: LayerNorm, *, norm_first: bool) -> Array:
    """Return x + norm(mlp(x)), or x + mlp(norm(x)) if `norm_first`: (b, n, d) -> (b, n, d).

    On TPUs one kernel computes it, if the weights fit on the chip.
    """
    inner, outer = ((layer.kernel[...], layer.bias[...]) for layer in (mlp.inner, mlp.outer))
    if mlp_tpu.fits(tokens, len(inner[1])):
        given = inner, outer, (norm.scale[...], norm.bias[...])
        options = {'norm_first': norm_first, 'epsilon': norm.epsilon}
        return mlp_tpu.residual_mlp(tokens, *given, **options)
    if norm_first:
        return tokens + mlp(norm(tokens).astype(tokens.dtype)).astype(tokens.dtype)
    return tokens + norm(mlp(tokens)).astype(tokens.dtype)


class PatchEmbedding(nnx.Module):
    """Linear embedding of patches, followed by a norm.

    It equals a convolution whose kernel is as large as its stride. The kernel's rows are ordered by
    (row in patch, column in patch, channel).
    """

    def __init__(self, patch: int, channels: int, width: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.patch, self.dtype = patch, dtype
        self.projection = dense.Linear(patch * patch * channels, width, dtype=dtype, rngs=rngs)
        self.norm = layer_norm(width, rngs)

    def __call__(self, images: Array) -> Array:
        """(b, height, width, channels) -> (b, height/patch * width/patch, d)."""
        batch, height, width, channels = images.shape
        side = self.patch
        x = images.reshape(batch, height // side, side, width // side, side, channels)
        x = x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, side * side * channels)
        return self.norm(self.projection(x)).astype(self.dtype)


def gather_quads(tokens: Array, size: tuple[int, int]) -> Array:
    """Concatenate the channels of each 2x2 square of tokens: (b, h*w, d) -> (b, h*w/4, 4d).

    The order is that of the originals: down the left column, then down the right column.

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
    """Patch merging (except in the first stage), then `depth` blocks of the same kind.

    A block is called as `block(tokens, bias, shifted)` with `bias = block.position_bias()`.
    """

    def __init__(
        self,
        window_map: WindowMap,
        depth: int,
        block: Callable[[nnx.Rngs], nnx.Module],
        merge: nnx.Module | None,
        remat_policy: str,
        rngs: nnx.Rngs,
    ):
        self.window_map, self.remat_policy = window_map, remat_policy
        self.merge = merge
        self.blocks = nnx.vmap(block)(rngs.split(depth))

    def enter(self, tokens: Array) -> Array:
        """Merge the previous stage's tokens into the tokens that enter this stage's blocks."""
        return tokens if self.merge is None else self.merge(tokens)

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(jax.tree.leaves(nnx.state(self.blocks))[0])

    def __call__(self, tokens: Array) -> Array:
        """Run all blocks in a scan: (b, height*width, d) -> (b, height*width, d)."""
        return self.run(tokens, 0, self.depth)

    def run(self, tokens: Array, first: int, last: int) -> Array:
        """Run the blocks first..last - 1 in a scan: (b, height*width, d).

        Blocks of odd index shift their windows.
        """
        graphdef, state = nnx.split(self.blocks)
        state = jax.tree.map(operator.itemgetter(slice(first, last)), state)
        blocks = state, _position_biases(graphdef, state)

        def run_blocks(tokens, several, in_scan=True):
            for place in range(len(jax.tree.leaves(several)[0])):
                one = jax.tree.map(operator.itemgetter(place), several)
                shifted = self.window_map.shifts and (first + place) % 2 == 1
                tokens = self._run_block(graphdef, tokens, *one, shifted, in_scan)
            return tokens, None

        step = 2 if self.window_map.shifts else 1  # blocks with and without shift take turns
        whole = (last - first) // step
        if whole:
            steps = jax.tree.map(
                lambda leaf: leaf[: whole * step].reshape(whole, step, *leaf.shape[1:]), blocks
            )
            tokens, _ = jax.lax.scan(run_blocks, tokens, steps)
        rest = jax.tree.map(operator.itemgetter(slice(whole * step, None)), blocks)
        return run_blocks(tokens, rest, in_scan=False)[0]

    def unrolled(self) -> list[Callable[[Array], Array]]:
        """Return a function for each block, (b, height*width, d) -> (b, height*width, d).

        A scan writes what the gradient needs into a stack and reads it back. Functions called one
        after the other leave it where it is, but take longer to compile.
        """
        graphdef, state = nnx.split(self.blocks)
        blocks = state, _position_biases(graphdef, state)

        def function(place):
            state, bias = jax.tree.map(operator.itemgetter(place), blocks)
            shifted = self.window_map.shifts and place % 2 == 1

            def run(tokens):
                weights = remat.cast_products(state, tokens.dtype)
                return self._run_block(graphdef, tokens, weights, bias, shifted, in_scan=False)

            return run

        return [function(place) for place in range(self.depth)]

    def separate(self) -> list[tuple[nnx.Module, Array, bool]]:
        """Return each block as a module, with its position bias and whether its windows shift."""
        graphdef, state = nnx.split(self.blocks)
        biases = _position_biases(graphdef, state)
        return [
            (
                nnx.merge(graphdef, jax.tree.map(operator.itemgetter(place), state)),
                biases[place],
                self.window_map.shifts and place % 2 == 1,
            )
            for place in range(self.depth)
        ]

    def _run_block(self, graphdef, tokens, state, bias, shifted, in_scan):
        def run_in_chunks(tokens, state, bias):
            def run(tokens):
                return nnx.merge(graphdef, state)(tokens, bias, shifted)

            # Size of one example's hidden layer in the MLP.
            inner_bytes = 4 * math.prod(tokens.shape[1:]) * tokens.dtype.itemsize
            return cpu.in_chunks(run, tokens, inner_bytes)

        # All arrays are arguments: what a function only refers to would be stored for the gradient.
        run = remat.rematerialise(run_in_chunks, self.remat_policy, in_scan)
        return run(tokens, state, bias)


def _position_biases(graphdef: nnx.GraphDef, state: nnx.State) -> Array:
    """Return the position biases (n, heads, m, m) of the n blocks in `state`."""
    return jax.vmap(lambda block: nnx.merge(graphdef, block).position_bias())(state)


class Tower(nnx.Module):
    """Four stages and a final norm; a subclass sets `dtype`, calls `build` and defines `embed`.

    Attributes:
      stages: nnx.List of four Stage.
      dtype: dtype of the computation; parameters are float32.
      stage3_width, width_out: channels of stages 3 and 4.
    """

    def build(
        self,
        config,
        sides: tuple[int, int],
        block: Callable,
        merge: type,
        remat_policy: str,
        rngs: nnx.Rngs,
    ):
        """Create the stages and the final norm.

        Args:
          config: has the fields patch, width, depths, heads and window.
          sides: height and width of the input image in pixels.
          block: (width, heads, window_map, stage) -> a function from rngs to a block.
          merge: class of the merging module, built as merge(previous size, previous width, dtype,
            rngs).
          remat_policy: what each block keeps for its gradient, a key of remat.POLICIES.
          rngs: random keys of the parameters.
        Raises:
          ValueError: the patch does not divide the sides, a map to merge has an odd side, or the
            heads do not divide the channels.
        """
        if any(side % config.patch for side in sides):
            raise ValueError(
                f'the sides {sides} in pixels are not multiples of the patch, {config.patch}'
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
                Stage(
                    window_map,
                    depth,
                    block(width, heads, window_map, i),
                    merging,
                    remat_policy,
                    rngs,
                )
            )
        self.stages = nnx.List(stages)
        self.norm = layer_norm(width, rngs)
        self.stage3_width, self.width_out = width // 2, width

    def embed(self, x: Array) -> Array:
        """Return the tokens that enter stage 1."""
        raise NotImplementedError

    def stem(self, x: Array) -> Array:
        """Run the tower up to stage 3 and return the tokens that enter its blocks, (b, n3, d3)."""
        tokens = self.stages[0](self.embed(x))
        tokens = self.stages[1](self.stages[1].enter(tokens))
        return self.stages[2].enter(tokens)

    def tail(self, tokens: Array) -> Array:
        """Run stage 4 and the final norm on stage 3's output: (b, n3, d3) -> (b, n4, d4)."""
        tokens = self.stages[3].enter(tokens)
        for run_block in self.stages[3].unrolled():
            tokens = run_block(tokens)
        return self.norm(tokens).astype(self.dtype)

    def __call__(self, x: Array) -> TowerOutput:
        """Run the whole tower."""
        tokens, stages = self.embed(x), []
        for stage in self.stages:
            tokens = stage(stage.enter(tokens))
            stages.append(tokens)
        tokens = self.norm(tokens).astype(self.dtype)
        return TowerOutput(pool(tokens), tokens, tuple(stages))

    def block_outputs(self, x: Array) -> tuple[tuple[Array, ...], ...]:
        """Return the tokens (b, n_i, d_i) after every block, by stage and block.

        The compile time grows with the depth.
        """
        tokens, outputs = self.embed(x), []
        for stage in self.stages:
            tokens, stage_outputs = stage.enter(tokens), []
            for run_block in stage.unrolled():
                tokens = run_block(tokens)
                stage_outputs.append(tokens)
            outputs.append(tuple(stage_outputs))
        return tuple(outputs)


def pool(tokens: Array) -> Array:
    """Average the tokens in float32: (..., n, d) -> (..., d) in the dtype of the tokens."""
    return jnp.mean(tokens, axis=-2, dtype=jnp.float32).astype(tokens.dtype)
