"""The streams that a question attends to: all information about a video as tokens (Fig. 2).

Axes: V videos, Q questions, T segments, K regions, n tokens, d width. A stream that does not depend
on the question has a question axis of length 1.
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from amuse_jax.models import dense, hierarchy
from amuse_jax.models.roi_highway import RoiHighway
from amuse_jax.models.source_timeline import SourceTimeline

# Every stream, and the part of Table 4 whose ablation removes it.
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
    """Return the streams that remain without `part` of Table 4; all of them if `part` is ''."""
    return tuple(name for name, owner in PARTS.items() if owner != part)


@flax.struct.dataclass
class Stream:
    """The tokens of one stream.

    Attributes:
      tokens: [V, Q or 1, n, d].
      mask: [V, n] bool, False = padding.
      time: [V, n, T], distribution of each token over the segments; rows sum to one.
      names: [m, d], embedded names of the things that the last m tokens stand for, zeros for a
        thing that has no name; None = every token stands for a moment.
    """

    tokens: jax.Array
    mask: jax.Array
    time: jax.Array
    names: jax.Array | None = None


@dataclasses.dataclass(frozen=True)
class StreamConfig:
    """Sizes of the streams.

    Attributes:
      names: names of the model's streams, in order.
      widths: (name, width of its features) for every possible stream.
      segments: T.
      is_instrument: whether each class of the detector is an instrument.
      width: d.
    """

    names: tuple[str, ...]
    widths: tuple[tuple[str, int], ...]
    segments: int
    is_instrument: tuple[bool, ...]
    width: int


class Streams(nnx.Module):
    """Embeddings of all streams.

    Every stream but `regions` has a token per segment, W LayerNorm(feature) + temporal position +
    stream embedding, to which some streams add predictions:

    - rhythm_*: the predicted change of rhythm times a learned vector.
    - source_*: the predicted frequencies times the embedded names of the instruments.
    - source_audio: also has a token per instrument, from SourceTimeline.
    - regions: has the tokens of RoiHighway, one per region and one per object, plus the stream
      embedding; a region's token also gets the temporal position.

    The caller embeds the names of classes and instruments in the same way as words. So a violin has
    the same direction in a question, a region, a source and an answer.
    """

    def __init__(self, config: StreamConfig, *, rngs: nnx.Rngs, dtype=jnp.float32):
        self.config, self.dtype = config, dtype
        width, widths = config.width, dict(config.widths)
        features = [name for name in config.names if name != 'regions']
        self.norms = nnx.Dict({n: hierarchy.layer_norm(widths[n], rngs) for n in features})
        self.projections = nnx.Dict(
            {n: dense.Linear(widths[n], width, dtype=dtype, rngs=rngs) for n in features}
        )
        self.time = nnx.Param(jnp.asarray(sinusoids(config.segments, width)))
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
        """Embed all streams of a batch.

        Args:
          inputs: amuse.AmuseInputs.
          visual, audio: [V, Q or 1, T, d] streams of the interactive encoder; None without it.
          class_names: [C, d] embedded names of the detector's classes.
          instrument_names: [I, d] embedded names of the instruments.
          place_names: [3, d] embedded names of left, middle and right.
        Returns:
          One Stream per name, and the distribution [V, n, T * K] of each token of `regions` over
          the regions (None without that stream).
        """
        mask = inputs.segment_mask
        features = {name: getattr(inputs, name) for name in self.projections if '_' in name}
        features = {name: feature[:, None] for name, feature in features.items()}
        features |= {'visual': visual, 'audio': audio}
        region_share, streams = None, []
        for index, name in enumerate(self.config.names):
            names = None
            if name == 'regions':
                tokens, valid, region_share = self._regions(inputs, class_names, place_names)
                time = region_share.reshape(*region_share.shape[:2], mask.shape[1], -1).sum(-1)
                names = _append_nameless(jnp.concatenate([class_names, place_names]))
            else:
                tokens, valid, time = self._moments(name, features[name], inputs, instrument_names)
                if name == 'source_audio':
                    tokens, valid, time = self._with_timeline(
                        (tokens, valid, time), inputs, instrument_names
                    )
                    names = _append_nameless(instrument_names)
            streams.append(Stream(tokens + self.stream[index], valid, time, names))
        return tuple(streams), region_share

    def _moments(self, name: str, features: jax.Array, inputs, instrument_names: jax.Array):
        """Return tokens, mask and time of a stream with one token per segment."""
        tokens = self.projections[name](self.norms[name](features)) + self.time[...]
        if name.startswith('rhythm'):
            tokens = tokens + (inputs.rhythm[..., None] * self.rhythm[...])[:, None]
        if name.startswith('source'):
            tokens = tokens + (inputs.sources @ instrument_names)[:, None]
        mask = inputs.segment_mask
        each = jnp.eye(mask.shape[1])
        return tokens, mask, jnp.broadcast_to(each, (len(mask), *each.shape))

    def _with_timeline(self, moments, inputs, instrument_names: jax.Array):
        """Append the tokens of the instruments' timelines to tokens, mask and time in `moments`."""
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
        """Return tokens, mask and distribution over the regions of the stream `regions`."""
        mask = inputs.segment_mask
        embedded = self.highway(
            inputs.boxes, inputs.classes, inputs.scores, inputs.features, mask,
            class_names, place_names,
        )  # fmt: skip
        moments = embedded.moments + self.time[...][:, None]
        videos, segments, regions, width = moments.shape
        count = segments * regions
        each = jnp.broadcast_to(jnp.eye(count), (videos, count, count))
        members = jnp.moveaxis(embedded.members.reshape(videos, count, -1), 1, 2)
        share = jnp.concatenate([each, members], axis=1)
        share = share / jnp.maximum(share.sum(-1, keepdims=True), 1)
        tokens = jnp.concatenate([moments.reshape(videos, count, width), embedded.objects], axis=1)
        objects = jnp.ones(embedded.objects.shape[:2], bool)
        valid = (inputs.classes >= 0) & mask[..., None]
        valid = jnp.concatenate([valid.reshape(videos, count), objects], axis=1)
        return tokens[:, None], valid, share


def _append_nameless(names: jax.Array) -> jax.Array:
    """Append a row of zeros for the token that stands for all things together."""
    return jnp.pad(names, ((0, 1), (0, 0)))


def sinusoids(segments: int, width: int) -> np.ndarray:
    """Return positions [T, d] as in Vaswani et al. 2017, with periods from 4 segments to 8 T."""
    rates = 2 * np.pi / np.geomspace(4, 8 * segments, width // 2)
    angles = np.arange(segments)[:, None] * rates
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)
