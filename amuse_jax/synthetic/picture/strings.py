"""Drawings of the string instruments and their players, while playing and at rest.

Every public function draws the person and the instrument. `playing` tells whether the instrument
sounds, and `stroke` in [-1, 1] is the position of bow or hand. The part 'instrument' does not
include the bow.
"""

from amuse_jax.synthetic.picture.drawing import EDGE, Brush, Person

WOOD = (222, 140, 58)
DARK_WOOD = (92, 54, 32)
RED_WOOD = (168, 62, 28)
HORSEHAIR = (246, 240, 224)
STRING = (250, 246, 232)


def _fretted_neck(brush: Brush, length: float, colour, head) -> None:
    """Draw a neck along +x from 0 to `length`, with frets, and a head with pegs."""
    brush.tube([(0, 0), (length, 0)], 0.05, colour)
    for x in (0.3, 0.5, 0.7, 0.9):
        brush.stroke([(length * x, -0.025), (length * x, 0.025)], 0.01, STRING)
    brush.fill(
        ((length - 0.02, -0.035), (length + 0.13, -0.05), (length + 0.13, 0.05),
        (length - 0.02, 0.035)),
        head,
    )  # fmt: skip
    for x in (0.03, 0.09):
        for side in (-1, 1):
            brush.oval(length + x, side * 0.065, 0.018, 0.018, STRING)


def _guitar_body(brush: Brush, colour, rim) -> None:
    shape = (
        (-0.24, 0.0), (-0.2, 0.16), (-0.06, 0.19), (0.05, 0.12), (0.14, 0.135), (0.21, 0.07),
        (0.21, -0.07), (0.14, -0.135), (0.05, -0.12), (-0.06, -0.19), (-0.2, -0.16),
    )  # fmt: skip
    brush.smooth([(x * 1.07, y * 1.09) for x, y in shape], rim)
    brush.smooth(shape, colour, edge=False)
    brush.oval(0.06, 0, 0.06, 0.06, EDGE)
    brush.box(-0.14, -0.06, -0.11, 0.06, DARK_WOOD, edge=False)
    brush.stroke([(-0.12, 0), (0.2, 0)], 0.012, STRING)


def _plucked(person: Person, draw, playing: bool, stroke: float, scale: float, length: float):
    """Draw an instrument across the body; at rest it stands upright beside the player."""
    brush, hip = person.brush, person.hip
    person.body(nod=0.02 if playing else 0.0)
    if playing:
        x, y = -0.1, hip + 0.14
        with brush.at(x, y, 24 + 2 * stroke, scale), brush.part('instrument'):
            draw(brush)
        person.arms(
            (x + 0.05 + 0.02 * stroke, y + 0.02 + 0.1 * stroke),
            (x + 0.62 * length * scale + 0.06, y + 0.3 * length * scale + 0.02),
        )
        return
    with brush.at(0.31, 0.29 * scale + 0.02, 88, scale), brush.part('instrument'):
        draw(brush)
    person.arms((-0.25, hip - 0.02), (0.3, 0.29 * scale + length * scale * 0.82))


def acoustic_guitar(person: Person, playing: bool, stroke: float) -> None:
    """Draw a guitar across the body; at rest it stands on the floor beside the player."""

    def draw(brush: Brush) -> None:
        with brush.at(0.18, 0):
            _fretted_neck(brush, 0.42, DARK_WOOD, DARK_WOOD)
        _guitar_body(brush, WOOD, (120, 62, 24))

    _plucked(person, draw, playing, stroke, 1.05, 0.66)


def ukulele(person: Person, playing: bool, stroke: float) -> None:
    """Draw a small guitar high on the chest; at rest it hangs from one hand."""

    def draw(brush: Brush) -> None:
        with brush.at(0.18, 0):
            _fretted_neck(brush, 0.3, (150, 96, 50), (64, 196, 186))
        _guitar_body(brush, (70, 206, 194), (20, 112, 110))

    brush, hip = person.brush, person.hip
    person.body(nod=0.02 if playing else 0.0)
    if playing:
        with brush.at(-0.06, hip + 0.28, 14 + 3 * stroke, 0.85), brush.part('instrument'):
            draw(brush)
        person.arms((-0.03, hip + 0.29 + 0.08 * stroke), (0.27, hip + 0.37))
        return
    with brush.at(0.3, hip - 0.4, 88, 0.85), brush.part('instrument'):
        draw(brush)
    person.arms((-0.25, hip - 0.02), (0.29, hip - 0.08))


def banjo(person: Person, playing: bool, stroke: float) -> None:
    """Draw a banjo across the body; at rest it stands on the floor beside the player."""

    def draw(brush: Brush) -> None:
        with brush.at(0.14, 0):
            _fretted_neck(brush, 0.5, (140, 70, 40), (60, 34, 26))
        brush.oval(0, 0, 0.23, 0.23, (150, 154, 162))
        brush.oval(0, 0, 0.19, 0.19, (252, 250, 244))
        brush.box(-0.1, -0.05, -0.07, 0.05, DARK_WOOD, edge=False)
        brush.stroke([(-0.09, 0), (0.2, 0)], 0.014, (120, 120, 130))

    _plucked(person, draw, playing, stroke, 1.0, 0.66)


def electric_bass(person: Person, playing: bool, stroke: float) -> None:
    """Draw a bass guitar across the body; at rest it stands on the floor beside the player."""

    def draw(brush: Brush) -> None:
        with brush.at(0.14, 0):
            _fretted_neck(brush, 0.6, (236, 206, 150), (26, 70, 190))
        brush.fill(
            (
                (-0.24, 0.06), (-0.16, 0.17), (0.0, 0.11), (0.24, 0.2), (0.14, 0.06), (0.14, -0.05),
                (0.2, -0.17), (0.02, -0.11), (-0.15, -0.17), (-0.24, -0.08),
            ),
            (28, 84, 220),
        )  # fmt: skip
        brush.fill(((-0.1, -0.1), (0.1, -0.06), (0.1, 0.05), (-0.06, 0.07)), (244, 244, 248), False)
        for x in (-0.05, 0.04):
            brush.box(x, -0.05, x + 0.035, 0.05, EDGE, edge=False)

    _plucked(person, draw, playing, stroke, 1.0, 0.74)


def _violin_body(brush: Brush) -> None:
    """Draw a violin of length 1.2: body around the origin, neck and scroll along +x."""
    brush.stroke([(0.2, 0), (0.62, 0)], 0.05, EDGE)
    brush.oval(0.68, 0, 0.05, 0.045, RED_WOOD)
    brush.smooth(
        (
            (-0.36, 0.0), (-0.32, 0.16), (-0.16, 0.2), (-0.03, 0.1), (0.08, 0.1), (0.2, 0.17),
            (0.3, 0.1),
            (0.31, 0.0), (0.3, -0.1), (0.2, -0.17), (0.08, -0.1), (-0.03, -0.1), (-0.16, -0.2),
            (-0.32, -0.16),
        ),
        RED_WOOD,
    )  # fmt: skip
    brush.stroke([(-0.3, 0), (-0.14, 0)], 0.06, EDGE)
    brush.stroke([(-0.14, 0), (0.6, 0)], 0.02, STRING)
    brush.stroke([(-0.02, -0.07), (-0.02, 0.07)], 0.025, (240, 210, 150))
    for side in (-1, 1):
        brush.stroke([(-0.07, side * 0.09), (0.02, side * 0.07)], 0.02, EDGE)


def _bow(brush: Brush, length: float) -> None:
    """Draw a bow along +x, held at the origin."""
    with brush.part(''):
        brush.stroke([(0, -0.025), (length, -0.015)], 0.016, HORSEHAIR)
        brush.stroke([(-0.03, 0.012), (length, 0.008)], 0.022, DARK_WOOD)


def violin(person: Person, playing: bool, stroke: float) -> None:
    """Draw a violin at the chin with the bow across it; at rest both hang from the hands."""
    brush, hip = person.brush, person.hip
    person.body()
    if playing:
        with brush.at(0.22, hip + 0.48, 8, 0.66), brush.part('instrument'):
            _violin_body(brush)
        hand = (0.03 - 0.14 * stroke, hip + 0.22 - 0.13 * stroke)
        with brush.at(*hand, 52):
            _bow(brush, 0.6)
        person.arms(hand, (0.5, hip + 0.47))
        return
    with brush.at(0.33, hip - 0.4, 92, 0.66), brush.part('instrument'):
        _violin_body(brush)
    with brush.at(-0.26, hip - 0.04, -96):
        _bow(brush, 0.5)
    person.arms((-0.25, hip - 0.02), (0.33, hip + 0.0))


def cello(person: Person, playing: bool, stroke: float) -> None:
    """Draw a cello upright between the knees; at rest it leans away and the bow hangs down."""
    brush, hip = person.brush, person.hip
    person.body()
    place = (-0.01, 0.45, 75, 1.06) if playing else (0.2, 0.4, 58, 0.95)
    with brush.at(*place):
        with brush.part('instrument'):
            brush.stroke([(-0.34, 0), (-0.44, 0)], 0.02, EDGE)
            with brush.at(0, 0, 0, 1.05):
                _violin_body(brush)
    if playing:
        hand = (-0.22 - 0.13 * stroke, 0.42 + 0.02 * stroke)
        with brush.at(*hand, 6):
            _bow(brush, 0.62)
        person.arms(hand, (0.16, hip + 0.48))
        return
    with brush.at(-0.24, hip, -100):
        _bow(brush, 0.42)
    person.arms((-0.23, hip + 0.02), (0.4, hip + 0.25))


def erhu(person: Person, playing: bool, stroke: float) -> None:
    """Draw an erhu on the thigh: snakeskin drum and thin neck; at rest it lies across the lap."""
    brush, hip = person.brush, person.hip
    person.body()
    place = (-0.17, hip + 0.13, 92, 1.05) if playing else (-0.26, hip + 0.12, 10, 0.85)
    with brush.at(*place):
        with brush.part('instrument'):
            brush.tube([(0, 0), (0.86, 0)], 0.03, (70, 20, 22))
            for x in (0.68, 0.8):
                brush.tube([(x, -0.02), (x, 0.14)], 0.025, (20, 18, 20))
            brush.oval(0.88, 0.02, 0.035, 0.045, (70, 20, 22))
            brush.fill(
                ((-0.14, -0.07), (-0.14, 0.07), (-0.07, 0.14), (0.07, 0.14), (0.14, 0.07),
                (0.14, -0.07), (0.07, -0.14), (-0.07, -0.14)),
                (90, 22, 26),
            )  # fmt: skip
            brush.oval(0, 0, 0.1, 0.1, (214, 222, 170))
            for x, y in ((-0.04, 0.03), (0.04, 0.03), (0, -0.045), (0, 0.06)):
                brush.oval(x, y, 0.018, 0.018, (60, 84, 46), edge=False)
    if playing:
        hand = (0.2 + 0.13 * stroke, hip + 0.16)
        with brush.at(hand[0], hand[1], 174):
            _bow(brush, 0.56)
        person.arms((-0.19, hip + 0.52), hand)
        return
    with brush.at(-0.2, hip + 0.02, 4):
        _bow(brush, 0.5)
    person.arms((-0.12, hip + 0.12), (0.2, hip + 0.16))


def pipa(person: Person, playing: bool, stroke: float) -> None:
    """Draw a pear-shaped pipa upright at the chest; at rest it lies flat across the lap."""
    brush, hip = person.brush, person.hip
    person.body()
    place = (0.0, hip + 0.17, 67, 1.06) if playing else (-0.18, hip + 0.1, 4, 0.9)
    with brush.at(*place):
        with brush.part('instrument'):
            brush.tube([(0.3, 0), (0.62, 0), (0.68, 0.05)], 0.055, (60, 36, 30))
            for x in (0.5, 0.58):
                brush.tube([(x, -0.09), (x, 0.09)], 0.02, (60, 36, 30))
            brush.smooth(
                (
                    (-0.22, 0.0), (-0.18, 0.17), (-0.03, 0.215), (0.14, 0.13), (0.32, 0.05),
                    (0.32, -0.05), (0.14, -0.13), (-0.03, -0.215), (-0.18, -0.17),
                ),
                (246, 222, 150),
            )  # fmt: skip
            brush.box(-0.16, -0.08, -0.12, 0.08, (110, 62, 36), edge=False)
            for x in (0.04, 0.1, 0.16, 0.22, 0.28):
                width = 0.1 - 0.22 * (x - 0.04)
                brush.stroke([(x, -width), (x, width)], 0.016, (110, 62, 36))
    if playing:
        person.arms((-0.04 - 0.06 * stroke, hip + 0.2 + 0.06 * stroke), (0.2, hip + 0.62))
    else:
        person.arms((-0.22, hip + 0.1), (0.24, hip + 0.12))


def guzheng(person: Person, playing: bool, stroke: float) -> None:
    """Draw a long zither on trestles; at rest a cloth covers its strings."""
    brush, hip = person.brush, person.hip
    person.body(nod=0.04 if playing else 0.0)
    if not playing:
        person.arms_crossed()
    for x in (-0.34, 0.34):
        for side in (-1, 1):
            brush.stroke([(x, 0.34), (x + side * 0.1, 0.02)], 0.03, DARK_WOOD)
    with brush.part('instrument'):
        brush.smooth(
            ((-0.5, 0.36), (-0.5, 0.52), (-0.3, 0.55), (0.3, 0.55), (0.5, 0.52), (0.5, 0.36),
            (0.3, 0.33), (-0.3, 0.33)),
            (120, 52, 30),
        )  # fmt: skip
        brush.fill(((-0.44, 0.38), (-0.44, 0.51), (0.44, 0.51), (0.44, 0.38)), (238, 196, 120))
        for row in range(4):
            y = 0.40 + 0.03 * row
            brush.stroke([(-0.43, y), (0.43, y)], 0.008, STRING)
            for column in range(4):
                x = -0.3 + 0.13 * column + 0.04 * row
                brush.fill(((x, y), (x + 0.035, y), (x + 0.018, y + 0.035)), (255, 255, 250))
        if not playing:
            brush.box(-0.36, 0.34, 0.36, 0.55, (150, 30, 60))
            brush.box(-0.36, 0.34, 0.36, 0.37, (236, 190, 80), edge=False)
    if playing:
        lift = 0.1 * abs(stroke)
        person.arms(
            (-0.2 + 0.06 * stroke, hip + 0.0 + max(stroke, 0) * lift),
            (0.14 + 0.08 * stroke, hip + 0.0 + max(-stroke, 0) * lift),
        )
