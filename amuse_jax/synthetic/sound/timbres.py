"""How each instrument is made from the General MIDI bank: a program, a way of playing, a filter.

The bank knows neither erhu, pipa, guzheng, suona nor ukulele; those take the nearest program and
get their character from slides, vibrato, repeated strokes and resonances, so that no two
instruments share a timbre.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import signal

GAP = 0.3  # seconds of silence between two sampled notes

Filter = tuple[str, float, float]  # lowpass, highpass or peak; Hz; dB of a peak (else unused)

END = 0.05  # seconds in which a sampled note is faded out
_FAINTEST = 0.02  # of a stroke's loudest moment; what is fainter is not lifted further
_BEND_RANGE = 2.0  # semitones that a full pitch bend moves
_BEND_EVERY = 0.02  # seconds


@dataclass(frozen=True)
class Timbre:
    """The sound of one instrument.

    Attributes:
      program: General MIDI program, from 0; of a drum kit for `percussion`.
      low: lowest sampled pitch.
      high: highest sampled pitch.
      hold: seconds that a sampled note lasts.
      sustained: whether a note lasts as long as it is held (else it rings out by itself).
      release: seconds in which a note dies away after it is let go.
      percussion: keys of the General MIDI percussion map, for drums.
      voices: semitones above the written pitch that sound together.
      ring: how much the dying part of a note is lifted, 0 to 1; it tames the peaks of strokes.
      vibrato: (semitones, Hz), growing over the first half second.
      slide: semitones from which a note is approached, in a tenth of a second.
      repeats: strokes per second of a tremolo; 0: one stroke.
      drone: pitch that sounds throughout; None: none.
      filters: what the sampled notes pass through.
    """

    program: int
    low: int = 36
    high: int = 84
    hold: float = 2.0
    sustained: bool = True
    release: float = 0.12
    percussion: tuple[int, ...] = ()
    voices: tuple[int, ...] = (0,)
    ring: float = 0.0
    vibrato: tuple[float, float] = (0.0, 0.0)
    slide: float = 0.0
    repeats: float = 0.0
    drone: int | None = None
    filters: tuple[Filter, ...] = ()

    def bends(self) -> Iterator[tuple[float, int]]:
        """(seconds after the note begins, pitch wheel from -8192 to 8191)."""
        depth, rate = self.vibrato
        if not depth and not self.slide:
            return
        for moment in np.arange(0, self.hold, _BEND_EVERY):
            semitones = self.slide * max(0.0, 1 - moment / 0.1)
            semitones += depth * min(1.0, moment / 0.5) * np.sin(2 * np.pi * rate * moment)
            yield float(moment), int(np.clip(8191 * semitones / _BEND_RANGE, -8192, 8191))

    def strokes(self) -> Iterator[tuple[float, float]]:
        """(seconds after the note begins, length) of every stroke of a sampled note."""
        period = 1 / self.repeats if self.repeats else self.hold
        for moment in np.arange(0, self.hold - 1e-6, period):
            yield float(moment), min(period, self.hold - float(moment)) * 0.98

    def shape(self, sound: np.ndarray, rate: int) -> np.ndarray:
        """Filters a sampled note (samples,), also against what 32 kHz cannot hold."""
        sections = [signal.butter(4, 13500, 'lowpass', fs=rate, output='sos')]
        for kind, hz, gain_db in self.filters:
            if kind == 'peak':
                sections.append(_peak(hz, gain_db, rate))
            else:
                sections.append(signal.butter(2, hz, kind, fs=rate, output='sos'))
        shaped = signal.sosfilt(np.concatenate(sections), sound.astype(np.float64))
        if self.ring:
            smooth = signal.butter(1, 12, 'lowpass', fs=rate, output='sos')
            envelope = signal.sosfiltfilt(smooth, np.abs(shaped))
            shaped *= np.maximum(envelope / envelope.max(), _FAINTEST) ** -self.ring
        end = round(END * rate)
        shaped[-end:] *= np.linspace(1, 0, end)
        # A kit keeps the balance between its drums; elsewhere every pitch is equally strong.
        level = 1.0 if self.percussion else 1 / max(float(np.abs(shaped).max()), 1e-9)
        return (shaped * level).astype(np.float32)


def _peak(hz: float, gain_db: float, rate: int, width: float = 2.0) -> np.ndarray:
    """A resonance (Audio EQ Cookbook, peaking EQ) of quality `width`: a second-order section."""
    a = 10 ** (gain_db / 40)
    omega = 2 * np.pi * hz / rate
    alpha = np.sin(omega) / (2 * width)
    b = np.array([1 + alpha * a, -2 * np.cos(omega), 1 - alpha * a])
    d = np.array([1 + alpha / a, -2 * np.cos(omega), 1 - alpha / a])
    return np.concatenate([b, d])[None] / d[0]


TIMBRES = {
    'accordion': Timbre(21, 55, 84, voices=(0, 12), filters=(('highpass', 300, 0),)),
    'acoustic_guitar': Timbre(25, 45, 74, hold=2.5, sustained=False, release=0.2),
    'bagpipe': Timbre(109, 60, 79, release=0.05, drone=46, filters=(('peak', 2600, 6.0),)),
    'banjo': Timbre(105, 50, 76, sustained=False, release=0.12, filters=(('highpass', 250, 0),)),
    'bassoon': Timbre(70, 36, 62, filters=(('peak', 480, 8.0), ('lowpass', 4500, 0))),
    'cello': Timbre(42, 38, 65, vibrato=(0.15, 5.0), release=0.2, filters=(('peak', 250, 4.0),)),
    'clarinet': Timbre(71, 53, 84, filters=(('lowpass', 6000, 0),)),
    'congas': Timbre(0, hold=0.8, sustained=False, release=0.3, percussion=(62, 63, 64), ring=0.4),
    'drum': Timbre(0, hold=0.8, sustained=False, release=0.3, percussion=(36, 38, 42), ring=0.4),
    'electric_bass': Timbre(
        33, 28, 48, sustained=False, release=0.1, filters=(('lowpass', 2500, 0),)
    ),
    'erhu': Timbre(
        110, 62, 86, vibrato=(0.45, 6.0), slide=-1.2, release=0.1,
        filters=(('highpass', 500, 0), ('peak', 1100, 12.0), ('peak', 2900, 8.0)),
    ),
    'flute': Timbre(73, 65, 93, vibrato=(0.12, 5.0), filters=(('lowpass', 5000, 0),)),
    'guzheng': Timbre(107, 48, 81, hold=2.5, sustained=False, release=0.3, slide=0.7),
    'piano': Timbre(0, 48, 86, hold=2.5, sustained=False, release=0.15),
    'pipa': Timbre(
        106, 50, 79, repeats=11.0, release=0.1, filters=(('highpass', 350, 0), ('peak', 2000, 8.0))
    ),
    'saxophone': Timbre(66, 50, 77, vibrato=(0.2, 5.0), slide=-0.5, filters=(('peak', 900, 5.0),)),
    'suona': Timbre(
        111, 64, 86, vibrato=(0.3, 7.0), slide=-0.8,
        filters=(('highpass', 700, 0), ('peak', 3300, 12.0)),
    ),
    'trumpet': Timbre(56, 56, 81, release=0.08),
    'tuba': Timbre(58, 29, 50, filters=(('lowpass', 900, 0),)),
    'ukulele': Timbre(
        24, 60, 79, hold=1.2, sustained=False, release=0.1,
        filters=(('highpass', 350, 0), ('peak', 700, 6.0)),
    ),
    'violin': Timbre(40, 57, 88, vibrato=(0.2, 5.5), release=0.15, filters=(('peak', 2800, 6.0),)),
    'xylophone': Timbre(13, 65, 93, hold=0.9, sustained=False, release=0.3, ring=0.6),
}  # fmt: skip
