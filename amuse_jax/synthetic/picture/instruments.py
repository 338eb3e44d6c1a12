"""The drawing of each instrument, and whether its player sits."""

from collections.abc import Callable
from dataclasses import dataclass

from amuse_jax.synthetic.picture import strings, struck, winds
from amuse_jax.synthetic.picture.drawing import Person


@dataclass(frozen=True)
class Drawing:
    """The drawing of an instrument with its player.

    Attributes:
      draw: function (person, playing, stroke in [-1, 1]) that draws the person and the instrument.
      seated: whether the player sits.
    """

    draw: Callable[[Person, bool, float], None]
    seated: bool


DRAWINGS = {
    'accordion': Drawing(winds.accordion, True),
    'acoustic_guitar': Drawing(strings.acoustic_guitar, False),
    'bagpipe': Drawing(winds.bagpipe, False),
    'banjo': Drawing(strings.banjo, False),
    'bassoon': Drawing(winds.bassoon, True),
    'cello': Drawing(strings.cello, True),
    'clarinet': Drawing(winds.clarinet, False),
    'congas': Drawing(struck.congas, False),
    'drum': Drawing(struck.drum, True),
    'electric_bass': Drawing(strings.electric_bass, False),
    'erhu': Drawing(strings.erhu, True),
    'flute': Drawing(winds.flute, False),
    'guzheng': Drawing(strings.guzheng, True),
    'piano': Drawing(struck.piano, True),
    'pipa': Drawing(strings.pipa, True),
    'saxophone': Drawing(winds.saxophone, False),
    'suona': Drawing(winds.suona, False),
    'trumpet': Drawing(winds.trumpet, False),
    'tuba': Drawing(winds.tuba, True),
    'ukulele': Drawing(strings.ukulele, False),
    'violin': Drawing(strings.violin, False),
    'xylophone': Drawing(struck.xylophone, False),
}
