"""AudioSet's 527 sound classes (Gemmeke et al. 2017), and those of MUSIC-AVQA's 22 instruments.

Audio taggers and separators trained on AudioSet predict its classes, so each instrument needs the
classes that represent it. Sixteen instruments have one or more classes of their own. The other six
have none, and the nearest class represents them:

  bassoon   'Wind instrument, woodwind instrument', its family; AudioSet's only woodwinds are flute,
            saxophone and clarinet
  suona     the same class, because there is no nearer one for this loud double-reed shawm; no
            annotator built on AudioSet can distinguish it from a bassoon
  congas    'Tabla', the only drum in AudioSet that is played with bare hands
  erhu      'Bowed string instrument', its family; AudioSet's bowed strings are European
  pipa      'Mandolin', the plucked lute with the same tremolo
  tuba      'Brass instrument', its family; AudioSet's brass are trumpet, trombone and French horn

A family class is also active when its better-known members sound, so erhu, tuba, bassoon and suona
are detected too often. 'Zither' represents the guzheng alone: it is a zither, and no other of the
22 instruments is one.
"""

import functools
from importlib import resources

from amuse_jax.music_avqa.vocabulary import INSTRUMENTS

CLASSES = {
    'accordion': ('Accordion',),
    'acoustic_guitar': ('Acoustic guitar',),
    'bagpipe': ('Bagpipes',),
    'banjo': ('Banjo',),
    'bassoon': ('Wind instrument, woodwind instrument',),
    'cello': ('Cello',),
    'clarinet': ('Clarinet',),
    'congas': ('Tabla',),
    'drum': ('Drum kit', 'Drum', 'Snare drum', 'Bass drum', 'Hi-hat', 'Cymbal'),
    'electric_bass': ('Bass guitar',),
    'erhu': ('Bowed string instrument',),
    'flute': ('Flute',),
    'guzheng': ('Zither',),
    'piano': ('Piano',),
    'pipa': ('Mandolin',),
    'saxophone': ('Saxophone',),
    'suona': ('Wind instrument, woodwind instrument',),
    'trumpet': ('Trumpet',),
    'tuba': ('Brass instrument',),
    'ukulele': ('Ukulele',),
    'violin': ('Violin, fiddle',),
    'xylophone': ('Marimba, xylophone',),
}
STAND_INS = ('bassoon', 'suona', 'congas', 'erhu', 'pipa', 'tuba')


@functools.cache
def names() -> tuple[str, ...]:
    """Return the names of the 527 classes in AudioSet's order.

    The names and their order are those of class_labels_indices.csv (CC BY 4.0, Google).
    """
    return tuple((resources.files(__package__) / 'audioset.txt').read_text('utf-8').splitlines())


def class_indices(labels: dict[str, int]) -> tuple[tuple[int, ...], ...]:
    """Return the indices of each instrument's classes, in the order of INSTRUMENTS.

    Args:
      labels: the index of each class by its display name in AudioSet's class_labels_indices.csv.

    Raises:
      KeyError: a class is missing in `labels`.
    """
    return tuple(tuple(labels[name] for name in CLASSES[instrument]) for instrument in INSTRUMENTS)
