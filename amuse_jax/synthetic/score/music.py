"""Melodies, bass lines, chords and drum patterns over a common harmony and beat.

Everyone in a performance shares key, chord progression and beat; each part has its instrument's
range, a role and a density in notes per beat.
"""

import math
from dataclasses import dataclass

import numpy as np

from amuse_jax.synthetic.score.score import Note

BEATS_PER_BAR = 4
FORM = 'AABA'  # of the bars: where the same letter stands, rhythm and contour come again
REST_SHARE = 0.12  # of the places of a bar's rhythm at which the note before is held instead
NO_BEAT_BEFORE_CHANGE = 0.4  # of a beat: closer to a tempo change than this, none is begun

SCALES = {
    'major': (0, 2, 4, 5, 7, 9, 11),
    'minor': (0, 2, 3, 5, 7, 8, 10),
    'dorian': (0, 2, 3, 5, 7, 9, 10),
    'mixolydian': (0, 2, 4, 5, 7, 9, 10),
}
PROGRESSIONS = ((0, 3, 4, 0), (0, 5, 3, 4), (0, 4, 5, 3), (0, 2, 3, 4), (0, 3, 0, 4), (5, 3, 0, 4))

# General MIDI percussion map
KICK, SNARE, HI_HAT, MUTED_CONGA, HIGH_CONGA, LOW_CONGA = 36, 38, 42, 62, 63, 64


@dataclass(frozen=True)
class Range:
    """What an instrument is written for.

    Attributes:
      low: lowest MIDI pitch.
      high: highest MIDI pitch.
      roles: any of melody, bass, chords, drum, congas.
    """

    low: int
    high: int
    roles: tuple[str, ...]


RANGES = {
    'accordion': Range(55, 84, ('melody', 'chords')),
    'acoustic_guitar': Range(45, 74, ('melody', 'chords')),
    'bagpipe': Range(60, 79, ('melody',)),
    'banjo': Range(50, 76, ('melody', 'chords')),
    'bassoon': Range(36, 62, ('bass', 'melody')),
    'cello': Range(38, 65, ('bass', 'melody')),
    'clarinet': Range(53, 84, ('melody',)),
    'congas': Range(LOW_CONGA, LOW_CONGA, ('congas',)),
    'drum': Range(KICK, KICK, ('drum',)),
    'electric_bass': Range(28, 48, ('bass',)),
    'erhu': Range(62, 86, ('melody',)),
    'flute': Range(65, 93, ('melody',)),
    'guzheng': Range(48, 81, ('melody', 'chords')),
    'piano': Range(48, 86, ('melody', 'chords')),
    'pipa': Range(50, 79, ('melody',)),
    'saxophone': Range(50, 77, ('melody',)),
    'suona': Range(64, 86, ('melody',)),
    'trumpet': Range(56, 81, ('melody',)),
    'tuba': Range(29, 50, ('bass',)),
    'ukulele': Range(60, 79, ('melody', 'chords')),
    'violin': Range(57, 88, ('melody',)),
    'xylophone': Range(65, 93, ('melody',)),
}


@dataclass(frozen=True)
class Harmony:
    """Key and chords.

    Attributes:
      tonic: pitch class of the key, 0 = C.
      scale: semitones above the tonic, seven of them.
      progression: degree of the scale (from 0) that each bar's chord stands on; repeated.
    """

    tonic: int
    scale: tuple[int, ...]
    progression: tuple[int, ...]

    def chord(self, bar: int) -> tuple[int, int, int]:
        """Pitch classes of the bar's triad: root, third, fifth."""
        root = self.progression[bar % len(self.progression)]
        return tuple((self.tonic + self.scale[(root + step) % 7]) % 12 for step in (0, 2, 4))

    def pitches(self, low: int, high: int) -> list[int]:
        """The key's pitches from `low` to `high`, ascending."""
        classes = {(self.tonic + step) % 12 for step in self.scale}
        return [pitch for pitch in range(low, high + 1) if pitch % 12 in classes]


def draw_harmony(rng: np.random.Generator) -> Harmony:
    scale = SCALES[str(rng.choice(list(SCALES)))]
    progression = PROGRESSIONS[rng.integers(len(PROGRESSIONS))]
    return Harmony(int(rng.integers(12)), scale, progression)


def beat_times(tempo: tuple[tuple[float, float], ...], seconds: float) -> np.ndarray:
    """When the beats fall; every change of tempo begins on a beat.

    Args:
      tempo: (start second, beats per minute), as in Score.
      seconds: length of the performance.

    Returns:
      (beats + 1,) float64 seconds, ascending; the last is the end of the performance.
    """
    ends = [start for start, _ in tempo[1:]] + [seconds]
    times = []
    for (start, bpm), end in zip(tempo, ends):
        period = 60.0 / bpm
        count = max(1, math.ceil((end - start) / period - NO_BEAT_BEFORE_CHANGE))
        times += [start + period * index for index in range(count)]
    return np.array(times + [seconds])


@dataclass(frozen=True)
class _Slot:
    """A place in the beat grid where a note may begin."""

    start: float
    bar: int
    index: int  # in its bar
    on_beat: bool


def _slots(beats: np.ndarray, begin: float, end: float, density: float) -> list[_Slot]:
    """The grid of an interval: `density` places per beat, the first at `begin`, which is a beat."""
    first = int(np.argmin(np.abs(beats - begin)))
    stride, parts = (round(1 / density), 1) if density < 1 else (1, round(density))
    slots = []
    for beat in range(first, len(beats) - 1, stride):
        bar, beat_in_bar = divmod(beat, BEATS_PER_BAR)
        for part in range(parts):
            start = float(beats[beat] + (beats[beat + 1] - beats[beat]) * part / parts)
            if start >= end:
                return slots
            slots.append(_Slot(start, bar, beat_in_bar * parts // stride + part, part == 0))
    return slots


def play(
    instrument: str,
    role: str,
    density: float,
    intervals: tuple[tuple[float, float], ...],
    beats: np.ndarray,
    harmony: Harmony,
    rng: np.random.Generator,
) -> tuple[Note, ...]:
    """Writes a performer's notes.

    Args:
      instrument: decides the range.
      role: melody, bass, chords, drum or congas.
      density: notes per beat: 0.5, 1, 2 or 4; a little fewer sound, as some are held.
      intervals: (start, end) seconds to fill; starts are beats, and a note begins exactly there.
      beats: as `beat_times` returns it.
      harmony: key and chords.
      rng: draws rhythm and contour; same state, same notes.

    Returns:
      The notes by start, each inside an interval and held until the next begins.
    """
    per_bar = round(BEATS_PER_BAR * density)
    rests = {
        letter: rng.random(per_bar) < REST_SHARE * (density >= 1) for letter in sorted(set(FORM))
    }
    for bar in rests.values():
        bar[0] = False
    pitch_of = _PITCHES[role](RANGES[instrument], harmony, per_bar, rng)
    notes = []
    for begin, end in intervals:
        slots = [
            slot
            for slot in _slots(beats, begin, end, density)
            if slot.start == begin or not rests[FORM[slot.bar % len(FORM)]][slot.index]
        ]
        for slot, following in zip(slots, [slot.start for slot in slots[1:]] + [end]):
            accent = 108 if slot.index == 0 else 94 if slot.on_beat else 80
            velocity = accent + int(rng.integers(-6, 7))
            held = (following - slot.start) * 0.95
            notes += [Note(slot.start, held, pitch, velocity) for pitch in pitch_of(slot)]
    return tuple(notes)


def _melody(part: Range, harmony: Harmony, per_bar: int, rng: np.random.Generator):
    """A contour per letter of the form, moved so that each bar begins on a tone of its chord."""
    scale = harmony.pitches(part.low, part.high)
    contours = {}
    for letter in sorted(set(FORM)):
        steps = rng.choice((-2, -1, -1, 0, 1, 1, 2, 3), size=per_bar)
        contours[letter] = np.concatenate([[0], np.cumsum(steps)[:-1]])
    home = len(scale) // 2 + int(rng.integers(-2, 3))

    def pitch_of(slot: _Slot) -> list[int]:
        chord = harmony.chord(slot.bar)
        anchor = min(range(len(scale)), key=lambda i: (scale[i] % 12 not in chord, abs(i - home)))
        index = anchor + int(contours[FORM[slot.bar % len(FORM)]][slot.index])
        top = len(scale) - 1
        return [scale[top - abs(top - index % (2 * top))]]  # turns back at the ends of the range

    return pitch_of


def _bass(part: Range, harmony: Harmony, per_bar: int, rng: np.random.Generator):
    """The root where a bar begins, then tones of the chord."""
    tones = rng.integers(3, size=per_bar)
    tones[0] = 0

    def pitch_of(slot: _Slot) -> list[int]:
        tone = harmony.chord(slot.bar)[tones[slot.index]]
        return [part.low + (tone - part.low) % 12]

    return pitch_of


def _chords(part: Range, harmony: Harmony, per_bar: int, rng: np.random.Generator):
    """Triads in close position around the middle of the range."""
    lowest = (part.low + part.high) // 2 - 6 + int(rng.integers(-2, 3))

    def pitch_of(slot: _Slot) -> list[int]:
        return sorted(lowest + (tone - lowest) % 12 for tone in harmony.chord(slot.bar))

    return pitch_of


def _drum(part: Range, harmony: Harmony, per_bar: int, rng: np.random.Generator):
    """Kick and snare by turns on the beats, hi-hat between them, now and then a kick instead."""
    extra = rng.random(per_bar) < 0.2

    def pitch_of(slot: _Slot) -> list[int]:
        if not slot.on_beat:
            return [KICK] if extra[slot.index] else [HI_HAT]
        beat = slot.index * BEATS_PER_BAR // per_bar if per_bar >= BEATS_PER_BAR else slot.index
        return [KICK, HI_HAT] if beat % 2 == 0 else [SNARE, HI_HAT]

    return pitch_of


def _congas(part: Range, harmony: Harmony, per_bar: int, rng: np.random.Generator):
    """Low drum where a bar begins, then a fixed pattern of open and muted strokes."""
    strokes = rng.choice((MUTED_CONGA, HIGH_CONGA, HIGH_CONGA, LOW_CONGA), size=per_bar)
    strokes[0] = LOW_CONGA

    def pitch_of(slot: _Slot) -> list[int]:
        return [int(strokes[slot.index])]

    return pitch_of


_PITCHES = {
    'melody': _melody,
    'bass': _bass,
    'chords': _chords,
    'drum': _drum,
    'congas': _congas,
}
