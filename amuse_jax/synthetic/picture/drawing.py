"""A brush for shapes with exact extents, and the person that every instrument is drawn with.

Figures live in their own coordinates: x to the right with 0 at the player's middle, y upwards with
0 at the feet, about 1 wide and 1.7 high.
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
FINER = 3  # figures are drawn this much larger and reduced: smooth edges, widths below one pixel
_SHIFT = 4  # fractional bits of the coordinates given to OpenCV


class Brush:
    """Draws on a transparent picture and remembers how far each named part reaches."""

    def __init__(self, width: int, height: int, unit: float, origin: Point):
        """A picture of `width` x `height` pixels whose pixel `origin` is the figure's (0, 0).

        Args:
          unit: pixels per unit of the figure.
        """
        self.image = np.zeros((height * FINER, width * FINER, 4), np.uint8)
        self._matrix = np.array([[unit, 0, origin[0]], [0, -unit, origin[1]]]) * FINER
        self._part = ''
        self._drawn: dict[str, list[tuple[np.ndarray, float]]] = {}  # part: (points, margin), finer

    def finish(self) -> np.ndarray:
        """The picture: (height, width, 4) uint8, colours times opacity, then opacity."""
        height, width = self.image.shape[:2]
        return cv2.resize(
            self.image, (width // FINER, height // FINER), interpolation=cv2.INTER_AREA
        )

    def extent(self, part: str) -> tuple[float, float, float, float]:
        """How far what was drawn as `part` reaches: x0, y0, x1, y1 in pixels."""
        points, margins = zip(*self._drawn[part])
        reach = np.repeat(margins, [len(shape) for shape in points])[:, None]
        points = np.concatenate(points)
        low, high = (points - reach).min(0) / FINER, (points + reach).max(0) / FINER
        return (*low.tolist(), *high.tolist())

    @contextlib.contextmanager
    def at(self, x: float, y: float, angle: float = 0.0, scale: float = 1.0) -> Iterator[None]:
        """Moves the origin to (x, y), turns by `angle` degrees anticlockwise and scales."""
        outer = self._matrix
        cos, sin = np.cos(np.radians(angle)) * scale, np.sin(np.radians(angle)) * scale
        self._matrix = outer @ np.array([[cos, -sin, x], [sin, cos, y], [0, 0, 1]])
        yield
        self._matrix = outer

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What is drawn inside belongs to the part `name`; '' belongs to none."""
        outer, self._part = self._part, name
        yield
        self._part = outer

    def fill(self, points: Sequence[Point], colour: Colour, edge: bool = True) -> None:
        """A filled polygon, with a dark edge unless `edge` is False."""
        pixels = self._pixels(points, 0.006 if edge else 0.0)
        cv2.fillPoly(self.image, [pixels], (*colour, 255), cv2.LINE_8, _SHIFT)
        if edge:
            thickness = max(1, round(0.012 * self._unit()))
            cv2.polylines(self.image, [pixels], True, (*EDGE, 255), thickness, cv2.LINE_8, _SHIFT)

    def smooth(self, points: Sequence[Point], colour: Colour, edge: bool = True) -> None:
        """A filled closed curve through the points."""
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
        """A filled ellipse around (x, y) with the half axes `across` and `up`."""
        self.fill(_CIRCLE * (across, up) + (x, y), colour, edge)

    def box(
        self, x0: float, y0: float, x1: float, y1: float, colour: Colour, edge: bool = True
    ) -> None:
        """A filled rectangle between two opposite corners."""
        self.fill(((x0, y0), (x1, y0), (x1, y1), (x0, y1)), colour, edge)

    def stroke(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        """A line of round ends through the points."""
        pixels = self._pixels(points, width / 2)
        thickness = max(1, round(width * self._unit()))
        cv2.polylines(self.image, [pixels], False, (*colour, 255), thickness, cv2.LINE_8, _SHIFT)

    def tube(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        """A thick line with a dark edge."""
        self.stroke(points, width + 0.02, EDGE)
        self.stroke(points, width, colour)

    def _unit(self) -> float:
        return math.hypot(self._matrix[0, 0], self._matrix[1, 0])

    def _pixels(self, points: Sequence[Point], margin: float) -> np.ndarray:
        at = np.asarray(points, np.float64) @ self._matrix[:, :2].T + self._matrix[:, 2]
        if self._part:
            self._drawn.setdefault(self._part, []).append((at, margin * self._unit()))
        return np.rint(at * (1 << _SHIFT)).astype(np.int32)


_TURN = np.linspace(0, 2 * np.pi, 24, endpoint=False)
_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], 1)


@functools.cache
def closed_curve(points: tuple[Point, ...]) -> np.ndarray:
    """A smooth closed curve (Catmull-Rom) through the points: (6 per point, 2)."""
    p = np.array(points)
    before, after, beyond = np.roll(p, 1, 0), np.roll(p, -1, 0), np.roll(p, -2, 0)
    t = np.linspace(0, 1, 6, endpoint=False)[None, :, None]
    a, b = (after - before)[:, None] / 2, (beyond - p)[:, None] / 2
    p, q = p[:, None], after[:, None]
    curve = p + a * t + (3 * (q - p) - 2 * a - b) * t**2 + (2 * (p - q) + a + b) * t**3
    return curve.reshape(-1, 2)


@dataclass(frozen=True)
class Look:
    """What a person looks like."""

    skin: Colour
    hair: Colour
    top: Colour
    trousers: Colour
    style: int  # of the hair: 0 short, 1 long, 2 bun, 3 cap


SKINS = ((247, 211, 183), (232, 184, 146), (198, 140, 100), (141, 92, 62), (97, 62, 44))
HAIRS = ((36, 28, 26), (86, 54, 34), (150, 104, 56), (205, 170, 100), (120, 120, 122))
TOPS = (
    (88, 126, 178), (126, 168, 140), (150, 120, 170), (196, 206, 218), (104, 150, 160),
    (206, 150, 160), (120, 128, 140), (172, 186, 126),
)  # fmt: skip
TROUSERS = ((52, 56, 74), (70, 62, 60), (86, 92, 104), (44, 66, 84))


def draw_look(seed: int) -> Look:
    """A look drawn at random."""
    rng = np.random.default_rng([seed, 11])
    return Look(
        *(tuple(colours[rng.integers(len(colours))]) for colours in (SKINS, HAIRS, TOPS, TROUSERS)),
        style=int(rng.integers(4)),
    )


class Person:
    """Someone seen from the front, standing or sitting."""

    def __init__(self, brush: Brush, look: Look, seated: bool, lean: float = 0.0):
        """`lean` moves head and shoulders sideways."""
        self.brush, self.look, self.seated, self.lean = brush, look, seated, lean
        self.hip = 0.5 if seated else 0.7
        self.shoulder = self.hip + 0.46
        self.mouth = (lean, self.hip + 0.60)

    def body(self, nod: float = 0.0) -> None:
        """Seat, legs, trunk and head; `nod` lowers the head."""
        brush, look, hip = self.brush, self.look, self.hip
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
                brush.stroke([(side * x, y) for x, y in leg], 0.12, look.trousers)
                brush.oval(side * (leg[-1][0] + 0.02), 0.035, 0.075, 0.035, (30, 26, 28))
            top, lean = self.shoulder, self.lean
            brush.smooth(
                (
                    (-0.14, hip - 0.04), (-0.15, hip + 0.2), (lean - 0.2, top - 0.04),
                    (lean - 0.1, top + 0.05),
                    (lean + 0.1, top + 0.05), (lean + 0.2, top - 0.04), (0.15, hip + 0.2),
                    (0.14, hip - 0.04),
                ),
                look.top,
            )  # fmt: skip
            self._head(lean, self.hip + 0.67 - nod)

    def _head(self, x: float, y: float) -> None:
        brush, look = self.brush, self.look
        brush.stroke([(x, self.shoulder), (x, y)], 0.09, look.skin)
        if look.style == 1:
            brush.smooth(
                ((x - 0.17, y - 0.2), (x - 0.17, y + 0.1), (x, y + 0.2), (x + 0.17, y + 0.1),
                (x + 0.17, y - 0.2)),
                look.hair,
            )  # fmt: skip
        if look.style == 2:
            brush.oval(x, y + 0.19, 0.07, 0.06, look.hair)
        brush.oval(x, y, 0.135, 0.155, look.skin)
        cap = look.top if look.style == 3 else look.hair
        brush.smooth(
            ((x - 0.14, y + 0.03), (x - 0.1, y + 0.14), (x, y + 0.18), (x + 0.1, y + 0.14),
            (x + 0.14, y + 0.03), (x, y + 0.09)),
            cap,
        )  # fmt: skip
        for side in (-1, 1):
            brush.oval(x + side * 0.055, y + 0.005, 0.018, 0.022, EDGE, edge=False)
        brush.stroke([(x - 0.03, y - 0.075), (x + 0.03, y - 0.075)], 0.018, (150, 70, 70))

    def arms(self, left: Point | None, right: Point | None) -> None:
        """Arms to where the hands are, by the viewer's left and right; None: no such arm."""
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
        # Of the two ways to bend, elbows point down and outwards.
        if across @ (side * 0.5, -1.0) < 0:
            across = -across
        elbow = shoulder + reach / 2 + across * bend
        self.brush.tube([shoulder, elbow, hand], 0.085, self.look.top)
        self.brush.oval(*hand, 0.05, 0.05, self.look.skin)

    def arms_down(self) -> None:
        """Both arms hanging, or hands in the lap when seated."""
        x = 0.1 if self.seated else 0.25
        y = self.hip + (0.06 if self.seated else -0.02)
        self.arms((-x, y), (x, y))

    def arms_crossed(self) -> None:
        """The pose of someone who waits at an instrument that stands by itself."""
        y = self.hip + 0.26
        brush, look = self.brush, self.look
        with brush.part('player'):
            for side in (-1, 1):
                shoulder = (self.lean + side * 0.17, self.shoulder - 0.03)
                brush.tube([shoulder, (side * 0.23, y - 0.02)], 0.085, look.top)
            brush.tube([(-0.23, y - 0.02), (0.1, y + 0.04)], 0.085, look.top)
            brush.tube([(0.23, y - 0.02), (-0.1, y - 0.02)], 0.085, look.top)
            brush.oval(0.12, y + 0.05, 0.05, 0.05, look.skin)
            brush.oval(-0.12, y - 0.02, 0.05, 0.05, look.skin)
