"""MUSIC-AVQA's 22 instruments in the 527 sound classes of AudioSet (Gemmeke et al. 2017).

Audio taggers and separators trained on AudioSet speak of its classes, so their word for each
instrument is needed. Sixteen instruments have a class, or several, of their own. Six have none
among the 527, and a class that comes near stands in for them:

  bassoon   'Wind instrument, woodwind instrument', its family; AudioSet's woodwinds are flute,
            saxophone and clarinet alone
  suona     the same: a loud double-reed shawm, for which there is no nearer class; where it sounds
            no annotator built on AudioSet can tell it from a bassoon
  congas    'Tabla', the only drum in AudioSet that is played with bare hands
  erhu      'Bowed string instrument', its family; AudioSet's bowed strings are European
  pipa      'Mandolin', the plucked lute with the same tremolo
  tuba      'Brass instrument', its family; AudioSet's brass are trumpet, trombone and French horn

A family class is also active when its better-known members sound, so that erhu, tuba, bassoon and
suona are found too often. 'Zither' is guzheng's own: the guzheng is a zither, and no other of the
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
    """The 527 classes in the order of AudioSet's class_labels_indices.csv (CC BY 4.0, Google)."""
    return tuple((resources.files(__package__) / 'audioset.txt').read_text().splitlines())


def class_indices(labels: dict[str, int]) -> tuple[tuple[int, ...], ...]:
    """The classes of each instrument, in the order of INSTRUMENTS.

    Args:
      labels: index of each class by its display name, as in AudioSet's class_labels_indices.csv.

    Raises:
      KeyError: a class is missing from `labels`.
    """
    return tuple(tuple(labels[name] for name in CLASSES[instrument]) for instrument in INSTRUMENTS)
