"""How the kernels in tpu_kernels.py divide attention: into programs, and a window into tiles.

The scores of a window are transposed: a row is a key, a column is a pair of a head and a query. A
tile is 128 columns.
"""

import dataclasses
import functools
import math

from jax import Array

LANES = 128  # channels that the hardware handles as one row
PACKED_ROWS = 16  # rows of a register of bfloat16 numbers
MAX_WINDOWS = 8  # per program, if they fit: enough work to hide the program's start
MAX_TILES = 20  # that take turns
BLOCK_BYTES = 2**22  # size of a program's tokens; a v5e's core has 16 MiB for a program


@dataclasses.dataclass(frozen=True)
class Tile:
    """Up to 128 columns of a window's transposed scores.

    Attributes:
      pieces: (head, first query, last query + 1) of each head in the tile.
      columns: the tile's columns in the bias.
      span: the rows of 128 channels that hold the heads' channels.
      channels: the heads' channels, rounded outwards to whole registers.
    """

    pieces: tuple[tuple[int, int, int], ...]
    columns: slice
    span: slice
    channels: slice

    def columns_of(self, head: int) -> list[slice]:
        """Return where the head's columns are in the tile: a list of one or no slice."""
        found, start = [], 0
        for each, first, last in self.pieces:
            if each == head:
                found.append(slice(start, start + last - first))
            start += last - first
        return found


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of a kernel.

    Attributes:
      images, places: b and w of queries (b, w, tokens, heads * channels): images, and windows in an
        image.
      tokens, keys: m and n, queries and keys in a window.
      channels: c, channels of a head.
      heads: number of heads.
      group: heads per program.
      windows: windows per program, all at the same place of different images.
      cosine: whether queries and keys are divided by their lengths.
      biased, masked: whether there is a bias, and whether there is a mask.
    """

    images: int
    places: int
    tokens: int
    keys: int
    channels: int
    heads: int
    group: int
    windows: int
    cosine: bool
    biased: bool
    masked: bool

    @classmethod
    def of(cls, query: Array, key: Array, heads: int, cosine: bool, bias, mask) -> 'Sizes':
        """Return the sizes for these arrays, with as much work per program as fits."""
        (images, places, tokens, width), keys = query.shape, key.shape[2]
        channels = width // heads
        group = math.lcm(channels, LANES) // channels
        group = group if heads % group == 0 else heads
        one = (4 * tokens + 4 * keys) * group * channels * query.dtype.itemsize
        most = max(1, min(MAX_WINDOWS, BLOCK_BYTES // one))
        windows = max(n for n in range(1, most + 1) if images % n == 0)
        given = bias is not None, mask is not None
        return cls(images, places, tokens, keys, channels, heads, group, windows, cosine, *given)

    @property
    def width(self) -> int:
        """Number of channels that one kernel program handles."""
        return self.group * self.channels

    @property
    def grid(self) -> tuple[int, int, int]:
        """Numbers of programs: head groups, places, groups of images."""
        return self.heads // self.group, self.places, self.images // self.windows

    @property
    def columns(self) -> int:
        """Number of columns of a head in the bias.

        Heads stand side by side if their queries fill whole registers. Otherwise each head begins
        a tile of its own.
        """
        if self.tokens % PACKED_ROWS == 0:
            return self.tokens
        return -(-self.tokens // LANES) * LANES

    @functools.cached_property
    def tiles(self) -> tuple[Tile, ...]:
        """The tiles of a window's scores, for the heads of one program."""
        tiles = []
        for start in range(0, self.group * self.columns, LANES):
            first = start // self.columns
            last = min(self.group, -(-(start + LANES) // self.columns))
            ends = [
                (head, start - head * self.columns, start + LANES - head * self.columns)
                for head in range(first, last)
            ]
            pieces = tuple((head, max(0, a), min(self.tokens, b)) for head, a, b in ends)
            columns = slice(start, start + sum(b - a for _, a, b in pieces))
            span, channels = (
                slice(
                    first * self.channels // step * step,
                    min(self.width, -(-last * self.channels // step) * step),
                )
                for step in (LANES, PACKED_ROWS)
            )
            tiles.append(Tile(pieces, columns, span, channels))
        return tuple(tiles)

    @property
    def in_turns(self) -> int:
        """Number of windows whose tiles take turns."""
        most = max(1, MAX_TILES // len(self.tiles))
        return max(n for n in range(1, self.windows + 1) if self.windows % n == 0 and n <= most)
