"""The timbre of each instrument: a General MIDI program, an articulation and filters.

The sound bank has no erhu, pipa, guzheng, suona or ukulele. These use the nearest program, and
slides, vibrato, repeated strokes and resonances give them their character, so that no two
instruments share a timbre.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import signal

GAP = 0.3  # seconds of silence between two sampled notes

Filter = tuple[str, float, float]  # lowpass, highpass or peak; Hz; gain of a peak in dB

FADE_OUT = 0.05  # seconds; applied at the end of every sampled note
_ENVELOPE_FLOOR = 0.02  # share of the peak; a fainter part of a note is not amplified further
_BEND_RANGE = 2.0  # semitones of a full pitch bend
_BEND_STEP = 0.02  # seconds between two pitch bend messages


@dataclass(frozen=True)
class Timbre:
    """The sound of one instrument.

    Attributes:
      program: General MIDI program number, from 0; the drum kit number if `percussion` is set.
      low: lowest sampled pitch.
      high: highest sampled pitch.
      hold: length of a sampled note in seconds.
      sustained: whether a note lasts as long as it is held; otherwise it decays by itself.
      release: seconds in which a note fades after it is released.
      percussion: keys of the General MIDI percussion map; empty for pitched instruments.
      voices: intervals in semitones above the written pitch that sound together.
      ring: how much the decay of a note is amplified, 0 to 1; this reduces the peaks of strokes.
      vibrato: (depth in semitones, rate in Hz); the depth grows over the first half second.
      slide: start of a note's pitch slide in semitones; it reaches the pitch after 0.1 seconds.
      repeats: strokes per second of a tremolo; 0 means a single stroke.
      drone: pitch that sounds throughout, or None.
      filters: filters that are applied to the sampled notes.
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
        """Yield (seconds after the onset, pitch wheel value from -8192 to 8191)."""
        depth, rate = self.vibrato
        if not depth and not self.slide:
            return
        for moment in np.arange(0, self.hold, _BEND_STEP):
            semitones = self.slide * max(0.0, 1 - moment / 0.1)
            semitones += depth * min(1.0, moment / 0.5) * np.sin(2 * np.pi * rate * moment)
            yield float(moment), int(np.clip(8191 * semitones / _BEND_RANGE, -8192, 8191))

    def strokes(self) -> Iterator[tuple[float, float]]:
        """Yield (seconds after the onset, length in seconds) of every stroke of a sampled note."""
        period = 1 / self.repeats if self.repeats else self.hold
        for moment in np.arange(0, self.hold - 1e-6, period):
            yield float(moment), min(period, self.hold - float(moment)) * 0.98

    def shape(self, sound: np.ndarray, rate: int) -> np.ndarray:
        """Filter a sampled note.

        A low-pass at 13.5 kHz is always applied, because the result is resampled to 32 kHz.

        Args:
          sound: (samples,) float32.
          rate: sample rate in Hz.

        Returns:
          (samples,) float32, with a peak of 1 unless the timbre is a percussion kit.
        """
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
            shaped *= np.maximum(envelope / envelope.max(), _ENVELOPE_FLOOR) ** -self.ring
        fade = round(FADE_OUT * rate)
        shaped[-fade:] *= np.linspace(1, 0, fade)
        # A kit keeps the balance between its drums; otherwise every pitch gets the same peak.
        level = 1.0 if self.percussion else 1 / max(float(np.abs(shaped).max()), 1e-9)
        return (shaped * level).astype(np.float32)


def _peak(hz: float, gain_db: float, rate: int, q: float = 2.0) -> np.ndarray:
    """Return a peaking filter of quality `q` (Audio EQ Cookbook) as one second-order section."""
    a = 10 ** (gain_db / 40)
    omega = 2 * np.pi * hz / rate
    alpha = np.sin(omega) / (2 * q)
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
