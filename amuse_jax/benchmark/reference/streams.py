"""The streams to which a question attends, as tokens (Fig. 2)."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from ml_collections import ConfigDict
from torch import nn
from torch.nn import functional

from amuse_jax.benchmark.reference.attention import repeat_videos
from amuse_jax.benchmark.reference.roi_highway import RoiHighway
from amuse_jax.benchmark.reference.source_timeline import SourceTimeline

FEATURES = ('visual', 'audio', 'rhythm_visual', 'rhythm_audio', 'source_visual', 'source_audio')
NAMES = (*FEATURES, 'regions')


class Stream(NamedTuple):
    """The tokens of one stream.

    Attributes:
      tokens: (B, n, d).
      mask: (B, n) bool, False for padding.
      time: (B, n, T), how the attention to a token is distributed over the segments.
      names: (m, d), the names of the objects that the last m tokens stand for; None if there are no
        such tokens. The last token has no name: it stands for all objects together.
    """

    tokens: torch.Tensor
    mask: torch.Tensor
    time: torch.Tensor
    names: torch.Tensor | None = None


class Streams(nn.Module):
    """Embeds every stream: W LayerNorm(feature) + temporal position + stream embedding.

    Predicted rhythm and sources are added to their streams.
    """

    def __init__(self, config: ConfigDict, is_instrument: tuple[bool, ...]):
        super().__init__()
        segments, width = config.data.segments, config.model.answer.width
        sizes = {'visual': 8 * config.model.visual.width, 'audio': 8 * config.model.audio.width}
        sizes = {name: sizes[name.rpartition('_')[2]] for name in FEATURES}
        self.norms = nn.ModuleDict({name: nn.LayerNorm(size) for name, size in sizes.items()})
        self.projections = nn.ModuleDict({n: nn.Linear(size, width) for n, size in sizes.items()})
        self.time = nn.Parameter(0.5 * torch.randn(segments, width))
        self.stream = nn.Parameter(0.5 * torch.randn(len(NAMES), width))
        self.rhythm = nn.Parameter(torch.randn(width))
        self.timeline = SourceTimeline(segments, sizes['source_audio'], width)
        self.highway = RoiHighway(is_instrument, segments, config.rois.feature_size, width)

    def forward(
        self,
        inputs: Mapping[str, torch.Tensor],
        class_names: torch.Tensor,
        instrument_names: torch.Tensor,
        place_names: torch.Tensor,
    ) -> tuple[list[Stream], torch.Tensor]:
        """Embed the streams.

        Args:
          inputs: arrays by name: visual and audio (B, T, d), for each question; the other FEATURES
            (V, T, d), for each video; rhythm (V, T); sources (V, T, I); segment_mask (V, T); boxes,
            classes, scores and features (V, ...) as for RoiHighway.
          class_names: (C, d), the names of the detector's classes.
          instrument_names: (I, d), the names of the instruments.
          place_names: (3, d), the names of left, middle and right.

        Returns:
          The streams in the order of NAMES, and (B, n, T * K): how the attention to each token of
          the stream `regions` is distributed over the regions.
        """
        streams = {name: self._moments(name, inputs, instrument_names) for name in FEATURES}
        streams['source_audio'] = self._with_timeline(
            streams['source_audio'], inputs, instrument_names
        )
        streams['regions'], spread = self._regions(inputs, class_names, place_names)
        of_stream = zip(streams.values(), self.stream)
        streams = [s._replace(tokens=s.tokens + embedding) for s, embedding in of_stream]
        rows = len(inputs['visual'])
        return [
            Stream(*(repeat_videos(x, rows) for x in (s.tokens, s.mask, s.time)), s.names)
            for s in streams
        ], repeat_videos(spread, rows)

    def _moments(self, name: str, inputs, instrument_names: torch.Tensor) -> Stream:
        tokens = self.projections[name](self.norms[name](inputs[name])) + self.time
        if name.startswith('rhythm'):
            tokens = tokens + inputs['rhythm'][..., None] * self.rhythm
        if name.startswith('source'):
            tokens = tokens + inputs['sources'] @ instrument_names
        mask = inputs['segment_mask']
        time = torch.eye(mask.shape[1], device=mask.device).expand(len(mask), -1, -1)
        return Stream(tokens, mask, time)

    def _with_timeline(self, moments: Stream, inputs, instrument_names: torch.Tensor) -> Stream:
        objects, active = self.timeline(
            inputs['sources'], inputs['source_audio'], moments.mask, instrument_names
        )
        active = active.mT + 1e-6 * moments.mask[:, None]
        active = torch.cat([active, active.sum(1, keepdim=True)], dim=1)
        active = active / active.sum(-1, keepdim=True).clamp(min=1e-9)
        return Stream(
            torch.cat([moments.tokens, objects], dim=1),
            torch.cat([moments.mask, moments.mask.new_ones(objects.shape[:2])], dim=1),
            torch.cat([moments.time, active], dim=1),
            _append_nameless(instrument_names),
        )

    def _regions(self, inputs, class_names: torch.Tensor, place_names: torch.Tensor):
        mask = inputs['segment_mask']
        regions = self.highway(
            *(inputs[name] for name in ('boxes', 'classes', 'scores', 'features')),
            mask, class_names, place_names,
        )  # fmt: skip
        moments = (regions.moments + self.time[:, None]).flatten(1, 2)
        each = torch.eye(moments.shape[1], device=mask.device).expand(len(mask), -1, -1)
        spread = torch.cat([each, regions.members.flatten(1, 2).mT], dim=1)  # (B, n, T * K)
        spread = spread / spread.sum(-1, keepdim=True).clamp(min=1)
        valid = ((inputs['classes'] >= 0) & mask[..., None]).flatten(1)
        stream = Stream(
            torch.cat([moments, regions.objects], dim=1),
            torch.cat([valid, valid.new_ones(regions.objects.shape[:2])], dim=1),
            spread.unflatten(-1, (mask.shape[1], -1)).sum(-1),
            _append_nameless(torch.cat([class_names, place_names])),
        )
        return stream, spread


def _append_nameless(names: torch.Tensor) -> torch.Tensor:
    """Append a zero row for the token of all objects together, which has no name."""
    return functional.pad(names, (0, 0, 0, 1))
