"""Regions of one video: decode a picture per segment and run the detector on it.

This module imports PyTorch, so only processes of the rois stage may import it.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ml_collections import ConfigDict
from ultralytics.nn.tasks import DetectionModel

from amuse_jax.media import guarded
from amuse_jax.regions import detection, detector, pictures

ARRAYS = ('boxes', 'classes', 'scores', 'features')


@dataclass(frozen=True)
class Finder:
    """Finds the regions of a video, in the picture at the middle of each segment.

    Attributes:
      detector_path: a checkpoint that `detector.load` reads.
      segments: number of segments T.
      segment_seconds: length of a segment.
      image_size: longer side of the detector's input picture in pixels.
      regions: number of regions K per segment.
      min_score: lowest score that a region may have.
      max_overlap: highest IoU that a region may have with a better one of the same class.
      limits: limits for reading a video.
      videos: folders of the videos, as in `data.videos`.
    """

    detector_path: Path
    segments: int
    segment_seconds: float
    image_size: int
    regions: int
    min_score: float
    max_overlap: float
    limits: guarded.Limits
    videos: str

    @classmethod
    def from_settings(cls, config: ConfigDict, detector_path: Path) -> 'Finder':
        """Create a finder from the config's sections `data` and `rois`."""
        return cls(
            detector_path,
            config.data.segments,
            config.data.segment_seconds,
            config.rois.image_size,
            config.rois.regions,
            config.rois.min_score,
            config.rois.max_overlap,
            guarded.Limits.from_settings(config.data),
            config.data.videos,
        )

    def find(self, path: Path) -> dict[str, np.ndarray]:
        """Find the regions of the video at `path`, in the pictures that its record shows.

        Returns:
          'boxes' (T, K, 4), 'classes' (T, K), 'scores' (T, K) and 'features' (T, K, D).

        Raises:
          MediaError: the video cannot be read.
        """
        middles = [(index + 0.5) * self.segment_seconds for index in range(self.segments)]
        frames = pictures.read(
            self.limits, path, middles, self.image_size, self.segment_seconds / 2,
            until_sound_ends=True,
        )  # fmt: skip
        found = detection.find_regions(
            _load_once(self.detector_path),
            frames.pictures[frames.mask],
            frames.content_shape,
            regions=self.regions,
            min_score=self.min_score,
            max_overlap=self.max_overlap,
        )
        result = self.no_regions()
        for name in ARRAYS:
            result[name][frames.mask] = getattr(found, name)
        return result

    def no_regions(self) -> dict[str, np.ndarray]:
        """Return the arrays of a video that has no region in any segment."""
        feature_size = sum(detector.map_channels(_load_once(self.detector_path)))
        return vars(detection.Regions.empty(self.segments, self.regions, feature_size))


@functools.lru_cache(maxsize=1)
def _load_once(path: Path) -> DetectionModel:
    """Load the detector once per process, on one thread, because other processes run beside it."""
    torch.set_num_threads(1)
    model = detector.load(path).fuse(verbose=False)
    return model.to(detector.choose_device(), memory_format=torch.channels_last)
