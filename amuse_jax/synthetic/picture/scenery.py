"""The background of a performance: a hall or a meadow, varied by the seed."""

import cv2
import numpy as np

from amuse_jax.synthetic.picture.drawing import Colour

FLOOR = 0.78  # top edge of the ground, as a share of the height from the top
_SUPERSAMPLING = 2

_WALLS = ((226, 208, 178), (196, 206, 214), (214, 196, 200), (188, 204, 186))
_CURTAINS = ((150, 32, 44), (40, 62, 120), (28, 96, 74), (98, 44, 110))
_FLOORS = ((170, 122, 78), (142, 98, 66), (190, 150, 104))
_SKIES = ((132, 190, 236), (164, 208, 240), (238, 196, 160), (150, 176, 206))
_MEADOWS = ((112, 168, 72), (132, 180, 88), (150, 170, 84))
_LEAVES = ((44, 112, 58), (70, 130, 50), (150, 110, 40))


def paint(setting: str, seed: int, width: int, height: int) -> np.ndarray:
    """Paint the empty stage.

    Args:
      setting: 'indoor' or 'outdoor'.
      seed: seed of the colours and the objects.
      width: picture width in pixels.
      height: picture height in pixels.

    Returns:
      (height, width, 3) uint8 RGB.
    """
    rng = np.random.default_rng([seed, 23])
    picture = np.zeros((height * _SUPERSAMPLING, width * _SUPERSAMPLING, 3), np.uint8)
    {'indoor': _hall, 'outdoor': _meadow}[setting](picture, rng)
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def _choose(rng: np.random.Generator, colours) -> Colour:
    return tuple(int(value) for value in colours[rng.integers(len(colours))])


def _shade(colour: Colour, by: float) -> Colour:
    return tuple(int(min(255, value * by)) for value in colour)


def _gradient(picture: np.ndarray, y0: float, y1: float, top: Colour, bottom: Colour) -> None:
    height = picture.shape[0]
    rows = slice(round(y0 * height), round(y1 * height))
    t = np.linspace(0, 1, rows.stop - rows.start)[:, None, None]
    picture[rows] = np.array(top) * (1 - t) + np.array(bottom) * t


def _polygon(picture: np.ndarray, points, colour: Colour) -> None:
    """Fill a polygon; the points are shares of width and height."""
    height, width = picture.shape[:2]
    pixels = np.rint(np.asarray(points) * (width, height)).astype(np.int32)
    cv2.fillPoly(picture, [pixels], colour, cv2.LINE_AA)


def _disc(picture: np.ndarray, x: float, y: float, radius: float, colour: Colour, flat=1.0) -> None:
    """Fill an ellipse; `radius` is a share of the picture height, `flat` is height over width."""
    height, width = picture.shape[:2]
    axes = (round(radius * height), round(radius * flat * height))
    centre = (round(x * width), round(y * height))
    cv2.ellipse(picture, centre, axes, 0, 0, 360, colour, -1, cv2.LINE_AA)


def _hall(picture: np.ndarray, rng: np.random.Generator) -> None:
    """Paint a wall with windows, a wooden floor, curtains at both sides and ceiling lamps."""
    wall, floor, curtain = (_choose(rng, c) for c in (_WALLS, _FLOORS, _CURTAINS))
    _gradient(picture, 0, FLOOR, _shade(wall, 0.72), wall)
    _gradient(picture, FLOOR, 1, _shade(floor, 0.85), floor)
    for x in np.linspace(-0.6, 1.6, 18):
        line = ((0.5 + (x - 0.5) * 0.6, FLOOR), (x, 1.0), (x + 0.006, 1.0))
        _polygon(picture, line, _shade(floor, 0.7))
    _polygon(
        picture, ((0, FLOOR - 0.025), (1, FLOOR - 0.025), (1, FLOOR), (0, FLOOR)), _shade(wall, 0.5)
    )
    for _ in range(rng.integers(1, 4)):
        x, y, w, h = rng.uniform((0.15, 0.12, 0.06, 0.12), (0.8, 0.25, 0.12, 0.2))
        _polygon(picture, ((x, y), (x + w, y), (x + w, y + h), (x, y + h)), _shade(wall, 0.55))
        inner = ((x + 0.008, y + 0.014), (x + w - 0.008, y + 0.014), (x + w - 0.008, y + h - 0.014))
        _polygon(picture, (*inner, (x + 0.008, y + h - 0.014)), _choose(rng, _SKIES))
    reach = rng.uniform(0.05, 0.09)
    for side in (0, 1):
        for fold in range(4):
            x0, x1 = (abs(side - reach * (fold + shift) / 4) for shift in (0, 1))
            shade = _shade(curtain, 1.0 if fold % 2 else 0.78)
            _polygon(picture, ((x0, 0), (x1, 0), (x1, FLOOR + 0.03), (x0, FLOOR + 0.03)), shade)
    _polygon(picture, ((0, 0), (1, 0), (1, 0.06), (0, 0.06)), _shade(curtain, 0.85))
    for x in np.linspace(0.2, 0.8, rng.integers(2, 5)):
        shade = ((x - 0.03, 0.12), (x + 0.03, 0.12), (x + 0.012, 0.06), (x - 0.012, 0.06))
        _polygon(picture, shade, (70, 66, 64))
        _disc(picture, x, 0.125, 0.035, (255, 240, 180), flat=0.45)


def _meadow(picture: np.ndarray, rng: np.random.Generator) -> None:
    """Paint the sky with sun and clouds, hills, trees and grass."""
    sky, grass, leaf = (_choose(rng, c) for c in (_SKIES, _MEADOWS, _LEAVES))
    _gradient(picture, 0, FLOOR, sky, _shade(sky, 1.18))
    sun = rng.uniform(0.1, 0.9)
    _disc(picture, sun, 0.14, 0.1, (255, 236, 130))
    _disc(picture, sun, 0.14, 0.08, (255, 222, 70))
    for _ in range(rng.integers(1, 4)):
        x, y = rng.uniform((0.05, 0.06), (0.95, 0.22))
        for shift in (-0.04, 0.0, 0.04):
            _disc(picture, x + shift, y, 0.05 - abs(shift) / 3, (248, 250, 252), flat=0.6)
    for _ in range(3):
        x, radius = rng.uniform((0, 0.3), (1, 0.6))
        _disc(picture, x, FLOOR + 0.05, radius, _shade(grass, rng.uniform(0.75, 0.9)), flat=0.35)
    for _ in range(rng.integers(2, 6)):
        x, size = rng.uniform((0.02, 0.09), (0.98, 0.15))
        trunk = (
            (x - 0.01, FLOOR + 0.01),
            (x + 0.01, FLOOR + 0.01),
            (x + 0.006, 0.5),
            (x - 0.006, 0.5),
        )
        _polygon(picture, trunk, (96, 66, 44))
        for dx, dy in ((-0.035, 0.03), (0.035, 0.03), (0, -0.04)):
            shade = _shade(leaf, 1.0 + 2 * dx)
            _disc(picture, x + dx, 0.46 + dy, size, shade)
    _gradient(picture, FLOOR, 1, _shade(grass, 0.9), grass)
    for x, y in rng.uniform((0, FLOOR + 0.03), (1, 0.99), size=(40, 2)):
        _polygon(picture, ((x, y), (x + 0.004, y - 0.02), (x + 0.008, y)), _shade(grass, 0.75))
