"""Melodies, bass lines, chords and drum patterns over a common harmony and beat.

All performers share the key, the chord progression and the beat. Each part has a role, a density
in notes per beat and the range of its instrument.
"""

import math
from dataclasses import dataclass

import numpy as np

from amuse_jax.synthetic.score.score import Note

BEATS_PER_BAR = 4
FORM = 'AABA'  # bars with the same letter repeat the same rhythm and contour
REST_SHARE = 0.12  # share of the slots in a bar where the previous note is held instead
NO_BEAT_BEFORE_CHANGE = 0.4  # no beat starts closer to a tempo change than this share of a beat

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
    """Pitch range of an instrument, and the roles it can play.

    Attributes:
      low: lowest MIDI pitch.
      high: highest MIDI pitch.
      roles: a selection of melody, bass, chords, drum and congas.
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
    """Key and chord progression.

    Attributes:
      tonic: pitch class of the key, 0 = C.
      scale: the seven scale steps, in semitones above the tonic.
      progression: scale degree (from 0) of each bar's chord root; repeated to the end.
    """

    tonic: int
    scale: tuple[int, ...]
    progression: tuple[int, ...]

    def chord(self, bar: int) -> tuple[int, int, int]:
        """Return the pitch classes of the bar's triad: root, third, fifth."""
        root = self.progression[bar % len(self.progression)]
        return tuple((self.tonic + self.scale[(root + step) % 7]) % 12 for step in (0, 2, 4))

    def pitches(self, low: int, high: int) -> list[int]:
        """Return all pitches of the key from `low` to `high`, ascending."""
        classes = {(self.tonic + step) % 12 for step in self.scale}
        return [pitch for pitch in range(low, high + 1) if pitch % 12 in classes]


def draw_harmony(rng: np.random.Generator) -> Harmony:
    """Draw a key and a chord progression at random."""
    scale = SCALES[str(rng.choice(list(SCALES)))]
    progression = PROGRESSIONS[rng.integers(len(PROGRESSIONS))]
    return Harmony(int(rng.integers(12)), scale, progression)


def beat_times(tempo: tuple[tuple[float, float], ...], seconds: float) -> np.ndarray:
    """Return the times of all beats; every change of tempo falls on a beat.

    Args:
      tempo: (start second, beats per minute) of each section, as in Score.
      seconds: length of the performance.

    Returns:
      (beats + 1,) float64 seconds, ascending; the last entry is the end of the performance.
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
    """A position in the beat grid where a note may start."""

    start: float
    bar: int
    index: int  # position within the bar
    on_beat: bool


def _beat_grid(beats: np.ndarray, begin: float, end: float, density: float) -> list[_Slot]:
    """Return `density` slots per beat from `begin`, which must be a beat, until `end`."""
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


def write_part(
    instrument: str,
    role: str,
    density: float,
    intervals: tuple[tuple[float, float], ...],
    beats: np.ndarray,
    harmony: Harmony,
    rng: np.random.Generator,
) -> tuple[Note, ...]:
    """Write the notes of one performer.

    Args:
      instrument: the instrument, which determines the pitch range.
      role: melody, bass, chords, drum or congas.
      density: notes per beat: 0.5, 1, 2 or 4. Slightly fewer sound, because some notes are held.
      intervals: (start, end) seconds to fill. Every start is a beat, and a note begins there.
      beats: beat times as returned by `beat_times`.
      harmony: key and chord progression.
      rng: draws rhythm and contour; the same state gives the same notes.

    Returns:
      The notes sorted by start, each inside an interval and held until the next one begins.
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
            for slot in _beat_grid(beats, begin, end, density)
            if slot.start == begin or not rests[FORM[slot.bar % len(FORM)]][slot.index]
        ]
        for slot, following in zip(slots, [slot.start for slot in slots[1:]] + [end]):
            accent = 108 if slot.index == 0 else 94 if slot.on_beat else 80
            velocity = accent + int(rng.integers(-6, 7))
            held = (following - slot.start) * 0.95
            notes += [Note(slot.start, held, pitch, velocity) for pitch in pitch_of(slot)]
    return tuple(notes)


def _melody(part: Range, harmony: Harmony, per_bar: int, rng: np.random.Generator):
    """Draw one contour per letter of FORM, and shift it so that each bar starts on a chord tone."""
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
        return [scale[top - abs(top - index % (2 * top))]]  # reflected at the ends of the range

    return pitch_of


def _bass(part: Range, harmony: Harmony, per_bar: int, rng: np.random.Generator):
    """Play the root at the start of each bar, then random chord tones."""
    tones = rng.integers(3, size=per_bar)
    tones[0] = 0

    def pitch_of(slot: _Slot) -> list[int]:
        tone = harmony.chord(slot.bar)[tones[slot.index]]
        return [part.low + (tone - part.low) % 12]

    return pitch_of


def _chords(part: Range, harmony: Harmony, per_bar: int, rng: np.random.Generator):
    """Play triads in close position around the middle of the range."""
    lowest = (part.low + part.high) // 2 - 6 + int(rng.integers(-2, 3))

    def pitch_of(slot: _Slot) -> list[int]:
        return sorted(lowest + (tone - lowest) % 12 for tone in harmony.chord(slot.bar))

    return pitch_of


def _drum(part: Range, harmony: Harmony, per_bar: int, rng: np.random.Generator):
    """Alternate kick and snare on the beats, with hi-hat or an occasional kick between them."""
    extra = rng.random(per_bar) < 0.2

    def pitch_of(slot: _Slot) -> list[int]:
        if not slot.on_beat:
            return [KICK] if extra[slot.index] else [HI_HAT]
        beat = slot.index * BEATS_PER_BAR // per_bar if per_bar >= BEATS_PER_BAR else slot.index
        return [KICK, HI_HAT] if beat % 2 == 0 else [SNARE, HI_HAT]

    return pitch_of


def _congas(part: Range, harmony: Harmony, per_bar: int, rng: np.random.Generator):
    """Play a low drum at each bar start, then a fixed pattern of open and muted strokes."""
    strokes = rng.choice((MUTED_CONGA, HIGH_CONGA, HIGH_CONGA, LOW_CONGA), size=per_bar)
    strokes[0] = LOW_CONGA

    def pitch_of(slot: _Slot) -> list[int]:
        return [int(strokes[slot.index])]

    return pitch_of


# Role -> function that draws a pattern and returns a function from a slot to its pitches.
_PITCHES = {
    'melody': _melody,
    'bass': _bass,
    'chords': _chords,
    'drum': _drum,
    'congas': _congas,
}
