"""A brush that tracks the extent of what it draws, and the person who plays every instrument.

A figure has its own coordinates: x points right and is 0 at the player's middle, y points up and is
0 at the feet. A figure is about 1 unit wide and 1.7 units high.
"""

import contextlib
import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

Colour = tuple[int, int, int]  # red, green, blue
Point = tuple[float, float]

EDGE = (38, 30, 34)
SUPERSAMPLING = 3  # figures are drawn larger and reduced, for smooth edges and subpixel widths
_SHIFT = 4  # fractional bits of the coordinates that OpenCV gets


class Brush:
    """A brush on a transparent picture that records the extent of each named part."""

    def __init__(self, width: int, height: int, unit: float, origin: Point):
        """Create an empty picture.

        Args:
          width: picture width in pixels.
          height: picture height in pixels.
          unit: pixels per unit of the figure.
          origin: (x, y) pixel of the figure's origin.
        """
        self.image = np.zeros((height * SUPERSAMPLING, width * SUPERSAMPLING, 4), np.uint8)
        self._matrix = np.array([[unit, 0, origin[0]], [0, -unit, origin[1]]]) * SUPERSAMPLING
        self._part = ''
        # Part name -> (points, margin) of each shape, in supersampled pixels.
        self._shapes: dict[str, list[tuple[np.ndarray, float]]] = {}

    def finish(self) -> np.ndarray:
        """Return the picture: (height, width, 4) uint8, RGBA with premultiplied alpha."""
        height, width = self.image.shape[:2]
        return cv2.resize(
            self.image,
            (width // SUPERSAMPLING, height // SUPERSAMPLING),
            interpolation=cv2.INTER_AREA,
        )

    def extent(self, part: str) -> tuple[float, float, float, float]:
        """Return the bounding box of everything drawn as `part`: x0, y0, x1, y1 in pixels."""
        points, margins = zip(*self._shapes[part])
        margin = np.repeat(margins, [len(shape) for shape in points])[:, None]
        points = np.concatenate(points)
        low, high = (
            (points - margin).min(0) / SUPERSAMPLING,
            (points + margin).max(0) / SUPERSAMPLING,
        )
        return (*low.tolist(), *high.tolist())

    @contextlib.contextmanager
    def at(self, x: float, y: float, angle: float = 0.0, scale: float = 1.0) -> Iterator[None]:
        """Move the origin to (x, y), rotate by `angle` degrees counterclockwise and scale."""
        outer = self._matrix
        cos, sin = np.cos(np.radians(angle)) * scale, np.sin(np.radians(angle)) * scale
        self._matrix = outer @ np.array([[cos, -sin, x], [sin, cos, y], [0, 0, 1]])
        yield
        self._matrix = outer

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Record shapes drawn inside this context as part `name`; '' means no part."""
        outer, self._part = self._part, name
        yield
        self._part = outer

    def fill(self, points: Sequence[Point], colour: Colour, edge: bool = True) -> None:
        """Draw a filled polygon, with a dark edge unless `edge` is False."""
        pixels = self._pixels(points, 0.006 if edge else 0.0)
        cv2.fillPoly(self.image, [pixels], (*colour, 255), cv2.LINE_8, _SHIFT)
        if edge:
            thickness = max(1, round(0.012 * self._unit()))
            cv2.polylines(self.image, [pixels], True, (*EDGE, 255), thickness, cv2.LINE_8, _SHIFT)

    def smooth(self, points: Sequence[Point], colour: Colour, edge: bool = True) -> None:
        """Draw a filled smooth curve through the points."""
        self.fill(closed_curve(tuple(points)), colour, edge)

    def oval(
        self,
        x: float,
        y: float,
        across: float,
        up: float,
        colour: Colour,
        edge: bool = True,
    ) -> None:
        """Draw a filled ellipse around (x, y) with the half axes `across` and `up`."""
        self.fill(_CIRCLE * (across, up) + (x, y), colour, edge)

    def box(
        self, x0: float, y0: float, x1: float, y1: float, colour: Colour, edge: bool = True
    ) -> None:
        """Draw a filled rectangle between two opposite corners."""
        self.fill(((x0, y0), (x1, y0), (x1, y1), (x0, y1)), colour, edge)

    def stroke(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        """Draw a line with round ends through the points."""
        pixels = self._pixels(points, width / 2)
        thickness = max(1, round(width * self._unit()))
        cv2.polylines(self.image, [pixels], False, (*colour, 255), thickness, cv2.LINE_8, _SHIFT)

    def tube(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        """Draw a line with a dark edge through the points."""
        self.stroke(points, width + 0.02, EDGE)
        self.stroke(points, width, colour)

    def _unit(self) -> float:
        return math.hypot(self._matrix[0, 0], self._matrix[1, 0])

    def _pixels(self, points: Sequence[Point], margin: float) -> np.ndarray:
        pixels = np.asarray(points, np.float64) @ self._matrix[:, :2].T + self._matrix[:, 2]
        if self._part:
            self._shapes.setdefault(self._part, []).append((pixels, margin * self._unit()))
        return np.rint(pixels * (1 << _SHIFT)).astype(np.int32)


_TURN = np.linspace(0, 2 * np.pi, 24, endpoint=False)
_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], 1)


@functools.cache
def closed_curve(points: tuple[Point, ...]) -> np.ndarray:
    """Return a closed Catmull-Rom curve through n points: (6 n, 2) float64."""
    p = np.array(points)
    before, after, beyond = np.roll(p, 1, 0), np.roll(p, -1, 0), np.roll(p, -2, 0)
    t = np.linspace(0, 1, 6, endpoint=False)[None, :, None]
    a, b = (after - before)[:, None] / 2, (beyond - p)[:, None] / 2
    p, q = p[:, None], after[:, None]
    curve = p + a * t + (3 * (q - p) - 2 * a - b) * t**2 + (2 * (p - q) + a + b) * t**3
    return curve.reshape(-1, 2)


@dataclass(frozen=True)
class Appearance:
    """The colours and the hairstyle of a person."""

    skin: Colour
    hair: Colour
    top: Colour
    trousers: Colour
    hairstyle: int  # 0 short, 1 long, 2 bun, 3 cap


SKINS = ((247, 211, 183), (232, 184, 146), (198, 140, 100), (141, 92, 62), (97, 62, 44))
HAIRS = ((36, 28, 26), (86, 54, 34), (150, 104, 56), (205, 170, 100), (120, 120, 122))
TOPS = (
    (88, 126, 178), (126, 168, 140), (150, 120, 170), (196, 206, 218), (104, 150, 160),
    (206, 150, 160), (120, 128, 140), (172, 186, 126),
)  # fmt: skip
TROUSERS = ((52, 56, 74), (70, 62, 60), (86, 92, 104), (44, 66, 84))


def draw_appearance(seed: int) -> Appearance:
    """Draw an appearance at random."""
    rng = np.random.default_rng([seed, 11])
    return Appearance(
        *(tuple(colours[rng.integers(len(colours))]) for colours in (SKINS, HAIRS, TOPS, TROUSERS)),
        hairstyle=int(rng.integers(4)),
    )


class Person:
    """A person in front view, standing or seated."""

    def __init__(self, brush: Brush, appearance: Appearance, seated: bool, lean: float = 0.0):
        """Place a person at the origin of the brush.

        Args:
          brush: the brush to draw with.
          appearance: colours and hairstyle.
          seated: whether the person sits.
          lean: how far head and shoulders are moved sideways, in units of the figure.
        """
        self.brush, self.appearance, self.seated, self.lean = brush, appearance, seated, lean
        self.hip = 0.5 if seated else 0.7
        self.shoulder = self.hip + 0.46
        self.mouth = (lean, self.hip + 0.60)

    def body(self, nod: float = 0.0) -> None:
        """Draw chair, legs, torso and head; `nod` lowers the head."""
        brush, appearance, hip = self.brush, self.appearance, self.hip
        if self.seated:
            brush.box(-0.15, 0.40, 0.15, 0.46, (110, 84, 60))
            for x in (-0.12, 0.12):
                brush.stroke([(x, 0.40), (x * 1.2, 0.02)], 0.03, (84, 62, 44))
        with brush.part('player'):
            for side in (-1, 1):
                leg = (
                    [(0.07, hip), (0.18, hip - 0.03), (0.17, 0.05)]
                    if self.seated
                    else [(0.07, hip), (0.09, 0.05)]
                )
                brush.stroke([(side * x, y) for x, y in leg], 0.12, appearance.trousers)
                brush.oval(side * (leg[-1][0] + 0.02), 0.035, 0.075, 0.035, (30, 26, 28))
            top, lean = self.shoulder, self.lean
            brush.smooth(
                (
                    (-0.14, hip - 0.04), (-0.15, hip + 0.2), (lean - 0.2, top - 0.04),
                    (lean - 0.1, top + 0.05),
                    (lean + 0.1, top + 0.05), (lean + 0.2, top - 0.04), (0.15, hip + 0.2),
                    (0.14, hip - 0.04),
                ),
                appearance.top,
            )  # fmt: skip
            self._head(lean, self.hip + 0.67 - nod)

    def _head(self, x: float, y: float) -> None:
        brush, appearance = self.brush, self.appearance
        brush.stroke([(x, self.shoulder), (x, y)], 0.09, appearance.skin)
        if appearance.hairstyle == 1:
            brush.smooth(
                ((x - 0.17, y - 0.2), (x - 0.17, y + 0.1), (x, y + 0.2), (x + 0.17, y + 0.1),
                (x + 0.17, y - 0.2)),
                appearance.hair,
            )  # fmt: skip
        if appearance.hairstyle == 2:
            brush.oval(x, y + 0.19, 0.07, 0.06, appearance.hair)
        brush.oval(x, y, 0.135, 0.155, appearance.skin)
        cap = appearance.top if appearance.hairstyle == 3 else appearance.hair
        brush.smooth(
            ((x - 0.14, y + 0.03), (x - 0.1, y + 0.14), (x, y + 0.18), (x + 0.1, y + 0.14),
            (x + 0.14, y + 0.03), (x, y + 0.09)),
            cap,
        )  # fmt: skip
        for side in (-1, 1):
            brush.oval(x + side * 0.055, y + 0.005, 0.018, 0.022, EDGE, edge=False)
        brush.stroke([(x - 0.03, y - 0.075), (x + 0.03, y - 0.075)], 0.018, (150, 70, 70))

    def arms(self, left: Point | None, right: Point | None) -> None:
        """Draw arms that reach to the hands on the viewer's left and right; None draws no arm."""
        with self.brush.part('player'):
            for side, hand in ((-1, left), (1, right)):
                if hand is not None:
                    self._arm(side, hand)

    def _arm(self, side: int, hand: Point) -> None:
        shoulder = np.array([self.lean + side * 0.17, self.shoulder - 0.03])
        reach = np.array(hand) - shoulder
        distance = max(float(np.hypot(*reach)), 1e-6)
        bend = np.sqrt(max(0.25**2 - (distance / 2) ** 2, 0.0))
        across = np.array([reach[1], -reach[0]]) / distance
        # The elbow can bend to two sides; choose the one that points down and outwards.
        if across @ (side * 0.5, -1.0) < 0:
            across = -across
        elbow = shoulder + reach / 2 + across * bend
        self.brush.tube([shoulder, elbow, hand], 0.085, self.appearance.top)
        self.brush.oval(*hand, 0.05, 0.05, self.appearance.skin)

    def arms_down(self) -> None:
        """Draw hanging arms, or hands in the lap if the person is seated."""
        x = 0.1 if self.seated else 0.25
        y = self.hip + (0.06 if self.seated else -0.02)
        self.arms((-x, y), (x, y))

    def arms_crossed(self) -> None:
        """Draw crossed arms: the rest pose at an instrument that stands by itself."""
        y = self.hip + 0.26
        brush, appearance = self.brush, self.appearance
        with brush.part('player'):
            for side in (-1, 1):
                shoulder = (self.lean + side * 0.17, self.shoulder - 0.03)
                brush.tube([shoulder, (side * 0.23, y - 0.02)], 0.085, appearance.top)
            brush.tube([(-0.23, y - 0.02), (0.1, y + 0.04)], 0.085, appearance.top)
            brush.tube([(0.23, y - 0.02), (-0.1, y - 0.02)], 0.085, appearance.top)
            brush.oval(0.12, y + 0.05, 0.05, 0.05, appearance.skin)
            brush.oval(-0.12, y - 0.02, 0.05, 0.05, appearance.skin)
