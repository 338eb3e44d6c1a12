"""Drawings of the piano, the percussion and their players, while playing and at rest.

Every public function draws the person and the instrument. `playing` tells whether the instrument
sounds, and `stroke` in [-1, 1] is the position of the hands: at -1 the hand on the viewer's left is
up and the other one strikes; at 1 it is the opposite.
"""

import numpy as np

from amuse_jax.synthetic.picture.drawing import EDGE, Brush, Person

BLACK = (22, 22, 26)
RAINBOW = (
    (226, 44, 44), (240, 126, 32), (246, 204, 40), (120, 190, 50), (40, 160, 90), (40, 170, 200),
    (50, 100, 210), (110, 70, 190), (190, 70, 170),
)  # fmt: skip


def _hand_lifts(stroke: float, height: float) -> tuple[float, float]:
    return max(-stroke, 0.0) * height, max(stroke, 0.0) * height


def piano(person: Person, playing: bool, stroke: float) -> None:
    """Draw a grand piano with its keys towards the viewer; at rest lid and key cover are closed."""
    brush, hip = person.brush, person.hip
    if playing:
        with brush.part('instrument'):
            brush.smooth(
                ((-0.36, 0.6), (-0.3, 1.05), (0.1, 1.3), (0.5, 1.42), (0.5, 1.0), (0.46, 0.6)),
                BLACK,
            )
            brush.smooth(
                ((-0.22, 0.7), (-0.16, 1.0), (0.14, 1.17), (0.42, 1.26), (0.42, 0.7)),
                (176, 120, 52),
            )
    person.body(nod=0.04 if playing else 0.0)
    if not playing:
        person.arms_crossed()
    with brush.part('instrument'):
        for x in (-0.4, 0.4):
            brush.box(x - 0.035, 0.02, x + 0.035, 0.3, BLACK)
        brush.box(-0.48, 0.26, 0.48, 0.6, BLACK)
        if playing:
            brush.box(-0.44, 0.42, 0.44, 0.57, (252, 252, 248))
            for x in np.linspace(-0.38, 0.38, 13):
                brush.stroke([(x, 0.42), (x, 0.57)], 0.008, EDGE)
            for index, x in enumerate(np.linspace(-0.35, 0.35, 12)):
                if index % 7 not in (2, 6):
                    brush.box(x - 0.014, 0.48, x + 0.014, 0.57, BLACK, edge=False)
        else:
            brush.stroke([(-0.44, 0.5), (0.44, 0.5)], 0.02, (70, 70, 78))
        brush.stroke([(-0.46, 0.33), (0.46, 0.33)], 0.02, (212, 170, 60))
    if playing:
        left, right = _hand_lifts(stroke, 0.14)
        person.arms((-0.2 - 0.05 * stroke, hip + left), (0.2 - 0.05 * stroke, hip + right))


def xylophone(person: Person, playing: bool, stroke: float) -> None:
    """Draw rainbow-coloured bars over pipes; at rest the mallets lie across the bars."""
    brush, hip = person.brush, person.hip
    person.body(nod=0.03 if playing else 0.0)
    if not playing:
        person.arms_crossed()
    with brush.part('instrument'):
        for x in (-0.42, 0.42):
            brush.tube([(x, 0.62), (x, 0.03)], 0.035, (90, 92, 100))
        edges = np.linspace(-0.48, 0.48, len(RAINBOW) + 1)
        for index, colour in enumerate(RAINBOW):
            x0, x1 = edges[index] + 0.008, edges[index + 1] - 0.008
            brush.box(x0 + 0.02, 0.56, x1 - 0.02, 0.18 + 0.03 * index, (196, 204, 212))
            half = 0.17 - 0.008 * index
            brush.box(x0, 0.66 - half, x1, 0.66 + half, colour)
    if playing:
        for side, lift in zip((-1, 1), _hand_lifts(stroke, 0.22)):
            tip = (side * 0.2 - 0.1 * stroke, 0.7 + lift)
            hand = (side * 0.22, hip + 0.16 + lift * 0.8)
            brush.stroke([hand, tip], 0.024, (240, 220, 170))
            brush.oval(*tip, 0.05, 0.05, (250, 250, 250))
            person.arms(*((hand, None) if side < 0 else (None, hand)))
        return
    for y in (0.62, 0.7):
        brush.stroke([(-0.2, y), (0.2, y + 0.03)], 0.024, (240, 220, 170))
        brush.oval(0.22, y + 0.03, 0.045, 0.045, (250, 250, 250))


def drum(person: Person, playing: bool, stroke: float) -> None:
    """Draw a kit of bass drum, toms and cymbals; at rest the sticks cross on the bass drum."""
    brush, hip = person.brush, person.hip
    shake = 10 * stroke if playing else 0
    with brush.part('instrument'):
        for side in (-1, 1):
            brush.stroke([(side * 0.4, 0.03), (side * 0.37, 1.08)], 0.022, (130, 134, 142))
    person.body(nod=0.03 if playing else 0.0)
    if not playing:
        person.arms_crossed()
    with brush.part('instrument'):
        for side in (-1, 1):
            with brush.at(side * 0.36, 1.08, side * (14 + shake)):
                brush.oval(0, 0, 0.15, 0.035, (250, 206, 60))
            brush.box(side * 0.4 - 0.11, 0.4, side * 0.4 + 0.11, 0.6, (200, 26, 60))
            brush.oval(side * 0.4, 0.6, 0.11, 0.035, (252, 250, 244))
            brush.stroke([(side * 0.45, 0.4), (side * 0.48, 0.03)], 0.022, (130, 134, 142))
        brush.oval(0, 0.3, 0.29, 0.29, (200, 26, 60))
        brush.oval(0, 0.3, 0.24, 0.24, (252, 250, 244))
        brush.oval(0, 0.3, 0.1, 0.1, (60, 60, 70), edge=False)
    if playing:
        for side, lift in zip((-1, 1), _hand_lifts(stroke, 0.3)):
            hand = (side * 0.26, hip + 0.22 + lift)
            tip = (side * 0.4, 0.63 + 1.5 * lift)
            brush.stroke([hand, tip], 0.028, (244, 214, 150))
            person.arms(*((hand, None) if side < 0 else (None, hand)))
        return
    brush.stroke([(-0.2, 0.5), (0.22, 0.66)], 0.03, (244, 214, 150))
    brush.stroke([(0.2, 0.5), (-0.22, 0.66)], 0.03, (244, 214, 150))


def _conga(brush: Brush, x: float, height: float) -> None:
    brush.smooth(
        (
            (x - 0.1, 0.04), (x - 0.18, height * 0.5), (x - 0.16, height), (x + 0.16, height),
            (x + 0.18, height * 0.5), (x + 0.1, 0.04),
        ),
        (224, 128, 44),
    )  # fmt: skip
    for shift in (-0.1, 0.0, 0.1):
        stave = [(x + shift * 0.7, 0.06), (x + shift, height * 0.5), (x + shift * 0.9, height)]
        brush.stroke(stave, 0.012, (150, 74, 20))
    brush.stroke([(x - 0.16, height * 0.86), (x + 0.16, height * 0.86)], 0.03, (70, 74, 84))
    brush.stroke([(x - 0.165, height * 0.3), (x + 0.165, height * 0.3)], 0.03, (70, 74, 84))
    brush.oval(x, height, 0.17, 0.055, (250, 240, 214))


def congas(person: Person, playing: bool, stroke: float) -> None:
    """Draw two congas that are played with the hands."""
    brush, hip = person.brush, person.hip
    person.body(nod=0.03 if playing else 0.0)
    if not playing:
        person.arms_crossed()
    with brush.part('instrument'):
        _conga(brush, 0.2, 0.72)
        _conga(brush, -0.18, 0.78)
    if playing:
        left, right = _hand_lifts(stroke, 0.34)
        person.arms((-0.2, hip + 0.12 + left), (0.22, hip + 0.06 + right))
