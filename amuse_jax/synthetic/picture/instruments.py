"""Which drawing belongs to which instrument, and who sits to play it."""

from collections.abc import Callable
from dataclasses import dataclass

from amuse_jax.synthetic.picture import strings as drawing_strings
from amuse_jax.synthetic.picture import struck as drawing_struck
from amuse_jax.synthetic.picture import winds as drawing_winds
from amuse_jax.synthetic.picture.drawing import Person


@dataclass(frozen=True)
class Drawing:
    """How an instrument gets into the picture.

    Attributes:
      draw: draws the person with the instrument: (person, whether it sounds, stroke in [-1, 1]).
      seated: whether its player sits.
    """

    draw: Callable[[Person, bool, float], None]
    seated: bool


DRAWINGS = {
    'accordion': Drawing(drawing_winds.accordion, True),
    'acoustic_guitar': Drawing(drawing_strings.acoustic_guitar, False),
    'bagpipe': Drawing(drawing_winds.bagpipe, False),
    'banjo': Drawing(drawing_strings.banjo, False),
    'bassoon': Drawing(drawing_winds.bassoon, True),
    'cello': Drawing(drawing_strings.cello, True),
    'clarinet': Drawing(drawing_winds.clarinet, False),
    'congas': Drawing(drawing_struck.congas, False),
    'drum': Drawing(drawing_struck.drum, True),
    'electric_bass': Drawing(drawing_strings.electric_bass, False),
    'erhu': Drawing(drawing_strings.erhu, True),
    'flute': Drawing(drawing_winds.flute, False),
    'guzheng': Drawing(drawing_strings.guzheng, True),
    'piano': Drawing(drawing_struck.piano, True),
    'pipa': Drawing(drawing_strings.pipa, True),
    'saxophone': Drawing(drawing_winds.saxophone, False),
    'suona': Drawing(drawing_winds.suona, False),
    'trumpet': Drawing(drawing_winds.trumpet, False),
    'tuba': Drawing(drawing_winds.tuba, True),
    'ukulele': Drawing(drawing_strings.ukulele, False),
    'violin': Drawing(drawing_strings.violin, False),
    'xylophone': Drawing(drawing_struck.xylophone, False),
}
