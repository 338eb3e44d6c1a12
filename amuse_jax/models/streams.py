"""The streams that questions are asked of: all that Amuse knows about a video, as tokens (Fig. 2).

Axes: V videos, Q questions, T segments, K regions, n tokens, d width. A stream that doesn't depend
on the question has a question axis of length 1.
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from amuse_jax.models import hierarchy
from amuse_jax.models.roi_highway import RoiHighway
from amuse_jax.models.source_timeline import SourceTimeline

# Every stream, and the part of Table 4 that it goes with.
PARTS = {
    'visual': 'encoder',
    'audio': 'encoder',
    'rhythm_visual': 'rhythm',
    'rhythm_audio': 'rhythm',
    'source_visual': 'sources',
    'source_audio': 'sources',
    'regions': 'rois',
}


def names_without(part: str) -> tuple[str, ...]:
    """The streams that are left when `part` of Table 4 is taken away ('': all)."""
    return tuple(name for name, owner in PARTS.items() if owner != part)


@flax.struct.dataclass
class Stream:
    """One stream's tokens.

    Attributes:
      tokens: [V, Q or 1, n, d].
      mask: [V, n] bool, False = padding.
      time: [V, n, T], how a token's share of attention spreads over the segments; rows sum to one.
      names: [m, d], of the things that the last m tokens stand for, zeros for a thing that no word
        names; None: its tokens stand for moments.
    """

    tokens: jax.Array
    mask: jax.Array
    time: jax.Array
    names: jax.Array | None = None


@dataclasses.dataclass(frozen=True)
class StreamConfig:
    """Sizes of the streams.

    Attributes:
      names: which streams there are, in order.
      widths: (name, width of its features), of every stream.
      segments: T.
      is_instrument: per class of the detector, whether it is an instrument.
      width: d.
    """

    names: tuple[str, ...]
    widths: tuple[tuple[str, int], ...]
    segments: int
    is_instrument: tuple[bool, ...]
    width: int


class Streams(nnx.Module):
    """Embeds every stream: W LayerNorm(feature) + temporal position + stream, and what is known.

    - rhythm_*: plus the predicted change of rhythm times a learned vector.
    - source_*: plus the predicted frequencies times the instruments' names.
    - source_audio: also one token per instrument (SourceTimeline).
    - regions: the RoiHighway's moments and objects.

    Names of classes and instruments are embedded by the caller as it embeds words, so that a violin
    is the same direction in a question, in a region, in a source and in an answer.
    """

    def __init__(self, config: StreamConfig, *, rngs: nnx.Rngs, dtype=jnp.float32):
        self.config, self.dtype = config, dtype
        width, widths = config.width, dict(config.widths)
        features = [name for name in config.names if name != 'regions']
        self.norms = nnx.Dict({n: hierarchy.layer_norm(widths[n], rngs) for n in features})
        self.projections = nnx.Dict(
            {n: nnx.Linear(widths[n], width, dtype=dtype, rngs=rngs) for n in features}
        )
        self.time = nnx.Param(jnp.asarray(_sinusoids(config.segments, width)))
        draw = nnx.initializers.normal(0.5)
        self.stream = nnx.Param(draw(rngs.params(), (len(config.names), width)))
        if 'rhythm_audio' in config.names:
            self.rhythm = nnx.Param(nnx.initializers.normal(1.0)(rngs.params(), (width,)))
        if 'source_audio' in config.names:
            self.timeline = SourceTimeline(
                config.segments, widths['source_audio'], width, rngs=rngs, dtype=dtype
            )
        if 'regions' in config.names:
            self.highway = RoiHighway(
                config.is_instrument,
                config.segments,
                widths['regions'],
                width,
                rngs=rngs,
                dtype=dtype,
            )

    def __call__(
        self,
        inputs,
        visual,
        audio,
        class_names: jax.Array,
        instrument_names: jax.Array,
        place_names: jax.Array,
    ) -> tuple[tuple[Stream, ...], jax.Array | None]:
        """Embeds the streams of `inputs`, an amuse.AmuseInputs.

        Args:
          visual, audio: [V, Q or 1, T, d] of the interactive encoder; None without it.
          class_names: [C, d].
          instrument_names: [I, d].
          place_names: [3, d] of left, middle and right.
        Returns:
          A Stream per name, and [V, n, T * K] how the tokens of `regions` spread over the
          regions (None without them).
        """
        mask = inputs.segment_mask
        features = {name: getattr(inputs, name) for name in self.projections if '_' in name}
        features = {name: feature[:, None] for name, feature in features.items()}
        features |= {'visual': visual, 'audio': audio}
        spread, streams = None, []
        for index, name in enumerate(self.config.names):
            names = None
            if name == 'regions':
                tokens, valid, spread = self._regions(inputs, class_names, place_names)
                time = spread.reshape(*spread.shape[:2], mask.shape[1], -1).sum(-1)
                names = _and_all(jnp.concatenate([class_names, place_names]))
            else:
                tokens, valid, time = self._moments(name, features[name], inputs, instrument_names)
                if name == 'source_audio':
                    tokens, valid, time = self._with_timeline(
                        (tokens, valid, time), inputs, instrument_names
                    )
                    names = _and_all(instrument_names)
            streams.append(Stream(tokens + self.stream[index], valid, time, names))
        return tuple(streams), spread

    def _moments(self, name: str, features: jax.Array, inputs, instrument_names: jax.Array):
        tokens = self.projections[name](self.norms[name](features)) + self.time[...]
        if name.startswith('rhythm'):
            tokens = tokens + (inputs.rhythm[..., None] * self.rhythm[...])[:, None]
        if name.startswith('source'):
            tokens = tokens + (inputs.sources @ instrument_names)[:, None]
        mask = inputs.segment_mask
        each = jnp.eye(mask.shape[1])
        return tokens, mask, jnp.broadcast_to(each, (len(mask), *each.shape))

    def _with_timeline(self, moments, inputs, instrument_names: jax.Array):
        tokens, mask, time = moments
        objects, active = self.timeline(inputs.sources, inputs.source_audio, mask, instrument_names)
        active = jnp.moveaxis(active, 1, 2) + 1e-6 * mask[:, None]
        active = jnp.concatenate([active, active.sum(1, keepdims=True)], axis=1)
        active = active / jnp.maximum(active.sum(-1, keepdims=True), 1e-9)
        return (
            jnp.concatenate([tokens, objects[:, None]], axis=2),
            jnp.concatenate([mask, jnp.ones(objects.shape[:2], bool)], axis=1),
            jnp.concatenate([time, active], axis=1),
        )

    def _regions(self, inputs, class_names: jax.Array, place_names: jax.Array):
        mask = inputs.segment_mask
        found = self.highway(
            inputs.boxes, inputs.classes, inputs.scores, inputs.features, mask,
            class_names, place_names,
        )  # fmt: skip
        moments = found.moments + self.time[...][:, None]
        videos, segments, regions, width = moments.shape
        count = segments * regions
        each = jnp.broadcast_to(jnp.eye(count), (videos, count, count))
        members = jnp.moveaxis(found.members.reshape(videos, count, -1), 1, 2)
        spread = jnp.concatenate([each, members], axis=1)
        spread = spread / jnp.maximum(spread.sum(-1, keepdims=True), 1)
        tokens = jnp.concatenate([moments.reshape(videos, count, width), found.objects], axis=1)
        objects = jnp.ones(found.objects.shape[:2], bool)
        valid = (inputs.classes >= 0) & mask[..., None]
        valid = jnp.concatenate([valid.reshape(videos, count), objects], axis=1)
        return tokens[:, None], valid, spread


def _and_all(names: jax.Array) -> jax.Array:
    """A nameless last row, of the token for all things together."""
    return jnp.pad(names, ((0, 1), (0, 0)))


def _sinusoids(segments: int, width: int) -> np.ndarray:
    """[T, d] positions as in Vaswani et al. 2017, periods from 4 segments to 8 T."""
    rates = 2 * np.pi / np.geomspace(4, 8 * segments, width // 2)
    angles = np.arange(segments)[:, None] * rates
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)
