"""Regions of videos: decode a picture per segment and run the detector on it.

This module imports PyTorch, so only processes of the rois stage may import it.
"""

import concurrent.futures
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ml_collections import ConfigDict
from ultralytics.nn.tasks import DetectionModel

from amuse_jax.media import guarded
from amuse_jax.media.container import MediaError
from amuse_jax.regions import detection, detector, pictures
from amuse_jax.system import memory, sharded

# Videos whose pictures go through the detector together. On a CPU one process works per core.
VIDEOS_ON_A_GPU, VIDEOS_ON_A_CPU = 16, 1
_ADVICE = (
    'end other programs on this device, or set a smaller --config.rois.image_size, and run the '
    'same command again to continue'
)
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
        return self._detect([self._read(path)])[0]

    def find_all(self, paths: Sequence[Path]) -> Iterator[dict[str, np.ndarray] | MediaError]:
        """Find the regions of several videos.

        On a GPU several threads decode, and the detector gets the pictures of several videos at
        once.

        Yields:
          For each video the arrays of `find`, or the error if it cannot be read.
        """
        on_gpu = detector.choose_device().type == 'cuda'
        at_once = VIDEOS_ON_A_GPU if on_gpu else VIDEOS_ON_A_CPU
        threads = sharded.cpus_per_worker() if on_gpu else 1
        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            for start in range(0, len(paths), at_once):
                group = list(pool.map(self._read_or_error, paths[start : start + at_once]))
                readable = [each for each in group if not isinstance(each, MediaError)]
                found = iter(self._detect(readable))
                for each in group:
                    yield each if isinstance(each, MediaError) else next(found)

    def _read_or_error(self, path: Path) -> pictures.Pictures | MediaError:
        try:
            return self._read(path)
        except MediaError as error:
            return error

    def _read(self, path: Path) -> pictures.Pictures:
        return pictures.read_segments(
            self.limits, path, self.segments, self.segment_seconds, self.image_size
        )

    def _detect(self, videos: Sequence[pictures.Pictures]) -> list[dict[str, np.ndarray]]:
        """Run the detector on the pictures of all videos of one shape at once."""
        results: list[dict[str, np.ndarray]] = [self.no_regions() for _ in videos]
        by_shape: dict[tuple[int, int], list[int]] = {}
        for index, frames in enumerate(videos):
            by_shape.setdefault(frames.content_shape, []).append(index)
        for content_shape, members in by_shape.items():
            with memory.shortage_as_error('rois', _ADVICE):
                found = detection.find_regions(
                    _load_once(self.detector_path),
                    np.concatenate([videos[i].pictures[videos[i].mask] for i in members]),
                    content_shape,
                    regions=self.regions,
                    min_score=self.min_score,
                    max_overlap=self.max_overlap,
                )
            ends = np.cumsum([videos[i].mask.sum() for i in members])
            for name in ARRAYS:
                parts = np.split(getattr(found, name), ends[:-1])
                for index, part in zip(members, parts):
                    results[index][name][videos[index].mask] = part
        return results

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
