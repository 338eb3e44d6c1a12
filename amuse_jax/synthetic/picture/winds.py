"""Drawings of the wind instruments, the accordion and their players, while playing and at rest.

Every public function draws the person and the instrument. `playing` tells whether the instrument
sounds, and `stroke` in [-1, 1] is the position of the swaying instrument or of the bellows.
"""

import numpy as np

from amuse_jax.synthetic.picture.drawing import EDGE, Brush, Person

SILVER = (214, 222, 232)
GOLD = (240, 186, 40)
BRASS = (206, 140, 30)
EBONY = (26, 24, 30)


def _keys(brush: Brush, start: float, stop: float, count: int, colour, across: float = 0.0) -> None:
    for x in np.linspace(start, stop, count):
        brush.oval(x, across, 0.02, 0.02, colour)


def _bell(brush: Brush, x: float, width: float, colour) -> None:
    """Draw a bell that opens towards +x and ends at `x`."""
    brush.smooth(
        ((x - 0.2, 0.02), (x - 0.08, 0.045), (x, width), (x + 0.015, 0), (x, -width),
        (x - 0.08, -0.045), (x - 0.2, -0.02)),
        colour,
    )  # fmt: skip


def _pipe(person: Person, draw, playing: bool, place, hands, hang: float) -> None:
    """Draw a pipe at the mouth; at rest a hand holds it `hang` below the mouthpiece."""
    brush, hip = person.brush, person.hip
    person.body()
    if playing:
        with brush.at(*place), brush.part('instrument'):
            draw(brush)
        person.arms(*hands)
        return
    with brush.at(0.29, hip - 0.02 + hang, -88), brush.part('instrument'):
        draw(brush)
    person.arms((-0.25, hip - 0.02), (0.29, hip - 0.02))


def flute(person: Person, playing: bool, stroke: float) -> None:
    """Draw a transverse flute at the mouth; at rest it hangs from a hand."""

    def draw(brush: Brush) -> None:
        brush.tube([(-0.1, 0), (0.58, 0)], 0.065, SILVER)
        brush.stroke([(0.1, 0.0), (0.14, 0.0)], 0.06, (120, 130, 150))
        _keys(brush, 0.22, 0.5, 6, (120, 130, 150), 0.02)
        brush.oval(0.0, 0.0, 0.025, 0.018, EDGE)

    x, y = person.mouth
    y -= 0.03
    angle = -8 + 5 * stroke
    lift = np.sin(np.radians(angle))
    _pipe(
        person, draw, playing, (x, y, angle),
        ((0.2, y + 0.2 * lift - 0.04), (0.4, y + 0.4 * lift - 0.03)), 0.2,
    )  # fmt: skip


def clarinet(person: Person, playing: bool, stroke: float) -> None:
    """Draw a clarinet that points down from the mouth; at rest it hangs from a hand."""

    def draw(brush: Brush) -> None:
        brush.fill(((-0.06, -0.015), (-0.06, 0.015), (0.06, 0.035), (0.06, -0.035)), EBONY)
        brush.stroke([(0.05, 0), (0.56, 0)], 0.075, EBONY)
        _bell(brush, 0.7, 0.085, EBONY)
        for x in (0.08, 0.3, 0.53):
            brush.stroke([(x, -0.035), (x, 0.035)], 0.025, SILVER)
        _keys(brush, 0.15, 0.48, 6, SILVER)

    x, y = person.mouth
    angle = -86 + 12 * stroke
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    _pipe(
        person, draw, playing, (x, y, angle),
        ((x + 0.4 * cos - 0.02, y + 0.42 * sin), (x + 0.2 * cos + 0.02, y + 0.24 * sin)),
        0.16,
    )  # fmt: skip


def suona(person: Person, playing: bool, stroke: float) -> None:
    """Draw a suona with a wide bell at the mouth; at rest it hangs from a hand."""

    def draw(brush: Brush) -> None:
        brush.stroke([(-0.04, 0), (0.08, 0)], 0.025, GOLD)
        brush.oval(0.06, 0, 0.025, 0.045, GOLD)
        brush.fill(((0.08, 0.025), (0.36, 0.055), (0.36, -0.055), (0.08, -0.025)), (180, 30, 36))
        _keys(brush, 0.13, 0.31, 5, EDGE)
        brush.smooth(
            ((0.35, 0.05), (0.44, 0.08), (0.54, 0.19), (0.56, 0.0), (0.54, -0.19), (0.44, -0.08),
            (0.35, -0.05)),
            GOLD,
        )  # fmt: skip
        brush.stroke([(0.37, -0.05), (0.37, 0.05)], 0.03, BRASS)

    x, y = person.mouth
    angle = -28 + 14 * stroke
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    _pipe(
        person, draw, playing, (x, y, angle),
        ((x + 0.12 * cos, y + 0.15 * sin - 0.02),
        (x + 0.28 * cos, y + 0.28 * sin - 0.02)), 0.1,
    )  # fmt: skip


def trumpet(person: Person, playing: bool, stroke: float) -> None:
    """Draw a trumpet that points sideways from the mouth; at rest it hangs from a hand."""

    def draw(brush: Brush) -> None:
        brush.tube([(0.14, -0.1), (0.38, -0.1), (0.4, -0.05), (0.38, 0.0)], 0.035, GOLD)
        brush.tube([(0.14, -0.1), (0.12, -0.05), (0.14, 0.0)], 0.035, GOLD)
        brush.tube([(-0.02, 0), (0.42, 0)], 0.035, GOLD)
        for x in (0.2, 0.26, 0.32):
            brush.tube([(x, -0.12), (x, 0.05)], 0.035, (250, 214, 110))
            brush.oval(x, 0.08, 0.02, 0.02, SILVER)
        _bell(brush, 0.58, 0.13, GOLD)
        brush.oval(-0.03, 0, 0.02, 0.035, SILVER)

    x, y = person.mouth
    angle = 2 + 10 * stroke
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    _pipe(
        person, draw, playing, (x + 0.02, y, angle),
        ((x + 0.2 * cos, y + 0.2 * sin - 0.09), (x + 0.3 * cos, y + 0.3 * sin - 0.06)), 0.1,
    )  # fmt: skip


def bassoon(person: Person, playing: bool, stroke: float) -> None:
    """Draw a bassoon across the body, higher than the head; at rest it stands on the floor."""
    brush, hip = person.brush, person.hip
    person.body()
    x, y, angle = (-0.27, 0.3, 66 + 4 * stroke) if playing else (0.33, 0.08, 90)
    with brush.at(x, y, angle), brush.part('instrument'):
        brush.tube([(0, 0), (1.3, 0)], 0.085, (120, 26, 22))
        brush.tube([(0.02, -0.07), (0.72, -0.07)], 0.06, (146, 38, 28))
        brush.stroke([(1.24, 0), (1.32, 0)], 0.1, (250, 246, 236))
        for at in (0.12, 0.5, 0.9):
            brush.stroke([(at, -0.04), (at, 0.04)], 0.035, SILVER)
        _keys(brush, 0.2, 0.8, 7, SILVER)
        brush.stroke([(0.7, -0.07), (0.84, -0.1), (0.86, -0.2)], 0.02, SILVER)
    if playing:
        person.arms((-0.13, hip + 0.08), (0.1, hip + 0.34))
    else:
        person.arms((-0.16, hip + 0.06), (0.3, hip + 0.2))


def saxophone(person: Person, playing: bool, stroke: float) -> None:
    """Draw a saxophone from the mouth down and up to its bell; at rest it hangs from its strap."""
    brush, hip = person.brush, person.hip
    person.body()
    x, y = person.mouth
    place = (x + 0.02, y, 4 + 7 * stroke) if playing else (-0.1, hip + 0.2, -34)
    if not playing:
        brush.stroke(
            [(-0.1, person.shoulder), (0.0, hip + 0.14), (0.1, person.shoulder)], 0.02, EDGE
        )
    with brush.at(*place), brush.part('instrument'):
        brush.tube([(0.0, 0), (0.1, 0.03), (0.13, -0.06)], 0.035, GOLD)
        brush.stroke([(-0.03, -0.01), (0.03, 0.01)], 0.045, EBONY)
        brush.tube(
            [(0.13, -0.06), (0.1, -0.55), (0.15, -0.66), (0.25, -0.66), (0.3, -0.56)], 0.08, GOLD
        )
        brush.smooth(
            ((0.255, -0.6), (0.27, -0.42), (0.22, -0.26), (0.36, -0.23), (0.5, -0.3),
            (0.4, -0.44), (0.345, -0.58)),
            GOLD,
        )  # fmt: skip
        brush.oval(0.36, -0.265, 0.12, 0.045, BRASS)
        for t in np.linspace(-0.14, -0.52, 6):
            brush.oval(0.125 + 0.05 * t, t, 0.025, 0.022, (255, 240, 180))
    if playing:
        person.arms((0.03, hip + 0.12), (0.17, hip + 0.38))
    else:
        person.arms_down()


def tuba(person: Person, playing: bool, stroke: float) -> None:
    """Draw a tuba on the lap with its bell upwards; at rest it stands on its bell."""
    brush, hip = person.brush, person.hip
    person.body()
    place = (0.1, hip + 0.24, -4 + 4 * stroke, 1.0) if playing else (0.24, 0.54, 180, 0.82)
    with brush.at(*place), brush.part('instrument'):
        brush.smooth(
            ((-0.2, 0.0), (-0.17, -0.22), (0.0, -0.3), (0.17, -0.22), (0.2, 0.0), (0.16, 0.18),
            (0.0, 0.22), (-0.16, 0.18)),
            BRASS,
        )  # fmt: skip
        brush.smooth(
            ((-0.1, 0.0), (-0.08, -0.15), (0.0, -0.2), (0.08, -0.15), (0.1, 0.0), (0.0, 0.1)),
            (150, 94, 20),
        )
        for x in (-0.06, 0.0, 0.06):
            brush.tube([(x, -0.12), (x, 0.06)], 0.035, SILVER)
        brush.smooth(
            ((0.07, -0.1), (0.1, 0.3), (-0.02, 0.56), (0.2, 0.6), (0.42, 0.56), (0.28, 0.3),
            (0.2, -0.1)),
            BRASS,
        )  # fmt: skip
        brush.oval(0.2, 0.57, 0.23, 0.06, (122, 76, 16))
        brush.tube([(-0.1, 0.16), (-0.1, 0.34), (-0.06, 0.36)], 0.025, BRASS)
    if playing:
        person.arms((0.04, hip + 0.2), (0.3, hip + 0.2))
    else:
        person.arms((-0.12, hip + 0.06), (0.26, hip + 0.26))


def bagpipe(person: Person, playing: bool, stroke: float) -> None:
    """Draw a full tartan bag and three drones at the shoulder; at rest bag and drones hang down."""
    brush, hip = person.brush, person.hip
    person.body()
    full = 1.0 + 0.1 * stroke if playing else 0.62
    x, y = (0.12, hip + 0.27) if playing else (0.14, hip + 0.02)
    angles = (104, 84, 64) if playing else (-20, -44, -68)
    with brush.part('instrument'):
        for angle, length in zip(angles, (0.5, 0.56, 0.5)):
            with brush.at(x + 0.06, y + 0.08, angle + (3 * stroke if playing else 0)):
                brush.tube([(0, 0), (length, 0)], 0.04, EBONY)
                for at in (0.35, 0.6):
                    brush.stroke([(at * length, -0.02), (at * length, 0.02)], 0.04, (244, 236, 210))
                brush.box(length - 0.07, -0.04, length, 0.04, EBONY)
        with brush.at(x, y, 12):
            brush.oval(0, 0, 0.26, 0.17 * full, (196, 24, 44))
            for at in (-0.12, 0.0, 0.12):
                brush.stroke([(at, -0.13 * full), (at, 0.13 * full)], 0.035, (20, 104, 60))
            brush.stroke([(-0.22, 0), (0.22, 0)], 0.035, (20, 104, 60))
            brush.stroke([(-0.22, 0.03), (0.22, 0.03)], 0.012, (250, 220, 90))
        brush.tube([(x - 0.2, y), (x - 0.25, y - 0.4)], 0.035, EBONY)
        if playing:
            brush.stroke([(x - 0.14, y + 0.1), person.mouth], 0.025, EBONY)
    if playing:
        person.arms((x - 0.24, y - 0.24), (x + 0.1, y - 0.02))
    else:
        person.arms((x - 0.2, y + 0.02), (x + 0.12, y + 0.04))


def accordion(person: Person, playing: bool, stroke: float) -> None:
    """Draw two boxes with bellows, open on the chest; at rest they are closed and in the lap."""
    brush, hip = person.brush, person.hip
    person.body()
    half = 0.16 + 0.07 * (stroke + 1) / 2 if playing else 0.05
    low, high = (hip + 0.1, hip + 0.5) if playing else (hip - 0.06, hip + 0.28)
    fan = 0.05 * (stroke + 1) / 2 if playing else 0.0
    with brush.part('instrument'):
        folds = 7 if playing else 3
        for fold in range(folds):
            x0, x1 = (-half + 2 * half * (fold + shift) / folds for shift in (0, 1))
            colour = (248, 240, 226) if fold % 2 else (60, 20, 24)
            brush.box(x0, low + 0.02, x1, high - 0.02 + fan, colour, edge=False)
        brush.box(-half - 0.15, low, -half, high, (206, 22, 30))
        brush.box(half, low, half + 0.15, high, (206, 22, 30))
        brush.box(-half - 0.14, low + 0.03, -half - 0.07, high - 0.03, (252, 252, 250))
        for y in np.linspace(low + 0.07, high - 0.07, 5):
            brush.stroke([(-half - 0.14, y), (-half - 0.1, y)], 0.02, EBONY)
            brush.oval(half + 0.05, y, 0.014, 0.014, (250, 250, 250), edge=False)
            brush.oval(half + 0.1, y, 0.014, 0.014, (250, 250, 250), edge=False)
    y = (low + high) / 2
    if playing:
        person.arms((-half - 0.13, y), (half + 0.13, y))
    else:
        person.arms((-half - 0.1, high), (half + 0.1, high))
