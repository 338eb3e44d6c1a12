"""The frames of a performance: performers are placed, posed and painted.

Frames are stored as H.264 needs them: a luma plane and two chroma planes at half the size. Every
pose is drawn only once and then pasted, so that a frame costs a few copies.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from amuse_jax.synthetic.picture import scenery
from amuse_jax.synthetic.picture.drawing import Appearance, Brush, Person, draw_appearance
from amuse_jax.synthetic.picture.instruments import DRAWINGS
from amuse_jax.synthetic.score.score import Performer, Score

Box = tuple[float, float, float, float, str, int]  # x0, y0, x1, y1, class, index of the performer
Planes = tuple[np.ndarray, np.ndarray, np.ndarray]  # luma, and two of chroma at half the size

TALLEST = 1.74  # height of a standing player with an instrument, in units of the figure
REACH = 0.72  # extent of a figure to each side of its middle, in units of the figure
STROKE_STEPS = 4  # number of bow or hand positions on each side of the middle
CROWDING = 1.18  # width of a figure over its share of the picture width on a crowded stage
SWAY = 0.022  # amplitude of the player's sway, in units of the figure
FAINTEST_DB, LOUDEST_DB = -36.0, -16.0  # levels of the smallest and the largest movements


class Pose(NamedTuple):
    """The pose of one performer in a frame.

    Attributes:
      playing: whether the performer sounds.
      stroke: position of bow or hand, from -STROKE_STEPS to STROKE_STEPS; 0 at rest.
      shift: offset to the right in pixels; 0 at rest.
    """

    playing: bool
    stroke: int
    shift: int


@dataclass(frozen=True)
class _Figure:
    """A performer at a position in the picture."""

    index: int
    performer: Performer
    appearance: Appearance
    unit: float  # pixels per unit of the figure
    x: float  # position of the feet, in pixels
    y: float


class _Patch(NamedTuple):
    """A pose painted over its part of the stage; the masks are nonzero where the pose covers it."""

    rows: slice
    columns: slice
    planes: Planes
    mask: np.ndarray
    chroma_mask: np.ndarray


class Picture:
    """All frames and boxes of a score, at one size."""

    def __init__(self, score: Score, width: int, height: int):
        """Paint the stage and place the performers.

        Args:
          score: the performance to paint.
          width: picture width in pixels, even.
          height: picture height in pixels, even.

        Raises:
          ValueError: width or height is odd, or too small for a drawing.
        """
        if width % 2 or height % 2 or min(width, height) < 32:
            raise ValueError(
                f'a picture of {width}x{height} pixels cannot be painted; '
                'width and height must be even and at least 32'
            )
        self.width, self.height = width, height
        self._scene = scenery.paint(score.setting, score.seed, width, height)
        self._background = _planes(self._scene)
        self._figures = _place_figures(score, width, height)
        self._patches: dict[tuple[int, Pose], _Patch] = {}
        self._sprites: dict[tuple[int, bool, int], tuple[np.ndarray, Brush]] = {}

    def poses(self, seconds: np.ndarray) -> list[tuple[Pose, ...]]:
        """Return the poses of all visible performers at each of the times."""
        tracks = [_poses(figure, seconds) for figure in self._figures]
        return list(zip(*tracks)) if tracks else [()] * len(seconds)

    def paint(self, poses: Sequence[Pose], planes: Planes) -> None:
        """Paint the frame with these poses into `planes`.

        Args:
          poses: one pose per visible performer, as returned by `poses`.
          planes: uint8 arrays (height, width) and twice (height / 2, width / 2), overwritten.
        """
        for plane, background in zip(planes, self._background):
            plane[:] = background
        for figure, pose in zip(self._figures, poses):
            patch = self._patch(figure, pose)
            rows, columns = patch.rows, patch.columns
            half = (_half(rows), _half(columns))
            cv2.copyTo(patch.planes[0], patch.mask, planes[0][rows, columns])
            cv2.copyTo(patch.planes[1], patch.chroma_mask, planes[1][half])
            cv2.copyTo(patch.planes[2], patch.chroma_mask, planes[2][half])

    def boxes(self, poses: Sequence[Pose]) -> list[Box]:
        """Return the boxes of instruments and players as shares of the picture, cut at its edge."""
        boxes = []
        for figure, pose in zip(self._figures, poses):
            _, brush = self._sprite(figure, pose.playing, pose.stroke)
            left, top = _corner(figure)
            for part, name in (('instrument', figure.performer.instrument), ('player', 'player')):
                x0, y0, x1, y1 = brush.extent(part)
                xs = np.clip((np.array([x0, x1]) + left + pose.shift) / self.width, 0, 1)
                ys = np.clip((np.array([y0, y1]) + top) / self.height, 0, 1)
                box = (round(float(v), 4) for v in (xs[0], ys[0], xs[1], ys[1]))
                boxes.append((*box, name, figure.index))
        return boxes

    def _sprite(self, figure: _Figure, playing: bool, stroke: int) -> tuple[np.ndarray, Brush]:
        key = (figure.index, playing, stroke)
        if key not in self._sprites:
            left, top = _corner(figure)
            width = 2 * round(REACH * figure.unit) + 2
            height = round(figure.y + 0.03 * figure.unit) - top + 1
            brush = Brush(width, height, figure.unit, (figure.x - left, figure.y - top))
            drawing = DRAWINGS[figure.performer.instrument]
            person = Person(brush, figure.appearance, drawing.seated)
            drawing.draw(person, playing, stroke / STROKE_STEPS)
            self._sprites[key] = brush.finish(), brush
        return self._sprites[key]

    def _patch(self, figure: _Figure, pose: Pose) -> _Patch:
        key = (figure.index, pose)
        if key not in self._patches:
            self._patches[key] = self._make_patch(figure, pose)
        return self._patches[key]

    def _make_patch(self, figure: _Figure, pose: Pose) -> _Patch:
        sprite, _ = self._sprite(figure, pose.playing, pose.stroke)
        left, top = _corner(figure)
        x, y, w, h = cv2.boundingRect(sprite[..., 3])
        # The part of the picture that the figure covers, widened to whole chroma pixels.
        x0, x1 = _even(left + pose.shift + x, left + pose.shift + x + w, self.width)
        y0, y1 = _even(top + y, top + y + h, self.height)
        piece = np.zeros((y1 - y0, x1 - x0, 4), np.uint8)
        from_x, from_y = max(left + pose.shift, x0), max(top, y0)
        source = sprite[
            from_y - top : y1 - top, from_x - left - pose.shift : x1 - left - pose.shift
        ]
        piece[from_y - y0 :, from_x - x0 :][: source.shape[0], : source.shape[1]] = source
        alpha = np.ascontiguousarray(piece[..., 3])
        behind = cv2.multiply(
            self._scene[y0:y1, x0:x1], cv2.merge([255 - alpha] * 3), scale=1 / 255
        )
        blended = cv2.add(np.ascontiguousarray(piece[..., :3]), behind)
        mask = (alpha > 16).view(np.uint8)
        chroma_mask = mask.reshape(len(mask) // 2, 2, -1, 2).max((1, 3))
        return _Patch(slice(y0, y1), slice(x0, x1), _planes(blended), mask, chroma_mask)


def _place_figures(score: Score, width: int, height: int) -> list[_Figure]:
    """Return the visible performers, sorted from back to front."""
    visible = [(i, p) for i, p in enumerate(score.performers) if p.visible]
    if not visible:
        return []
    unit = min(0.94 * height / TALLEST, CROWDING * width / len(visible))
    figures = []
    for index, performer in visible:
        rng = np.random.default_rng([performer.appearance_seed, 31])
        depth = rng.uniform(0, 1)
        y = (0.985 - 0.05 * depth) * height
        largest = (y - 0.005 * height) / TALLEST
        size = min(unit * (1.0 - 0.07 * depth), largest)
        margin = min(size / 2, width / 2)
        x = float(np.clip(performer.x * width, margin, width - margin))
        appearance = draw_appearance(performer.appearance_seed)
        figures.append(_Figure(index, performer, appearance, size, x, y))
    return sorted(figures, key=lambda figure: figure.y)


def _poses(figure: _Figure, seconds: np.ndarray) -> list[Pose]:
    """Return a pose per time: strokes change sides with every note; louder players move more."""
    performer = figure.performer
    playing = np.zeros(len(seconds), bool)
    for start, end in performer.intervals:
        playing |= (seconds >= start) & (seconds < end)
    if not playing.any():
        return [Pose(False, 0, 0)] * len(seconds)
    loudness = (performer.gain_db - FAINTEST_DB) / (LOUDEST_DB - FAINTEST_DB)
    vigour = 0.4 + 0.6 * float(np.clip(loudness, 0, 1))
    onsets = np.array(sorted({note.start for note in performer.notes}))
    count = np.arange(len(onsets))
    strokes = vigour * np.interp(seconds, onsets, 1 - 2 * (count % 2))
    sways = vigour * SWAY * figure.unit * np.sin(np.pi / 2 * np.interp(seconds, onsets, count))
    strokes = np.rint(strokes * STROKE_STEPS).astype(int) * playing
    shifts = np.rint(sways).astype(int) * playing
    return [Pose(*pose) for pose in zip(playing.tolist(), strokes.tolist(), shifts.tolist())]


def _corner(figure: _Figure) -> tuple[int, int]:
    """Return the upper left pixel of the figure's sprite."""
    return round(figure.x - REACH * figure.unit), round(figure.y - 1.05 * TALLEST * figure.unit)


def _even(low: int, high: int, limit: int) -> tuple[int, int]:
    low, high = max(low, 0), min(high, limit)
    return low - low % 2, high + high % 2


def _half(span: slice) -> slice:
    return slice(span.start // 2, span.stop // 2)


def _planes(picture: np.ndarray) -> Planes:
    """Convert an RGB picture of even size to luma and chroma planes (BT.601, limited range)."""
    height, width = picture.shape[:2]
    joined = cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420).reshape(-1)
    size, shape = height * width, (height // 2, width // 2)
    return (
        joined[:size].reshape(height, width),
        joined[size : size + size // 4].reshape(shape),
        joined[size + size // 4 :].reshape(shape),
    )
