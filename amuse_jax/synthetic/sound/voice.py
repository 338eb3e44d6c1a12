"""A synthetic speaking voice without words that clearly sounds like a person, not an instrument.

Every glottal pulse excites decaying sinusoids at the resonances of the vocal tract (formant wave
functions, Rodet 1984). The resonances glide from vowel to vowel, every syllable rises and falls in
loudness, and noise bursts replace consonants.
"""

import numpy as np
from scipy import signal

# First four formants in Hz of adult vowels (Peterson and Barney 1952, rounded).
VOWELS = np.array(
    [
        (730, 1090, 2440, 3400),
        (530, 1840, 2480, 3500),
        (270, 2290, 3010, 3600),
        (570, 840, 2410, 3300),
        (300, 870, 2240, 3300),
        (660, 1720, 2410, 3500),
        (490, 1350, 1690, 3300),
    ],
    np.float64,
)
BANDWIDTHS = np.array([70.0, 90.0, 130.0, 180.0])  # Hz
LEVELS = np.array([1.0, 0.5, 0.22, 0.1])

SYLLABLES_PER_SECOND = 4.5
SYLLABLES_PER_PHRASE = 9
PULSE_SECONDS = 0.016  # a pulse has decayed after this time


def speak(seconds: float, sample_rate: int, seed: int) -> np.ndarray:
    """Synthesize speech-like sound.

    Args:
      seconds: length of the result.
      sample_rate: sample rate in Hz.
      seed: seed of the voice and its syllables.

    Returns:
      (samples,) float32 with a peak of 1.
    """
    rng = np.random.default_rng([seed, 47])
    samples = round(seconds * sample_rate)
    pitch = rng.choice((110.0, 195.0)) * rng.uniform(0.9, 1.1)
    tract = rng.uniform(0.95, 1.05) * (1.0 if pitch < 150 else 1.12)
    starts, lengths = _syllables(seconds, rng)
    vowels = VOWELS[rng.integers(len(VOWELS), size=len(starts))] * tract
    pulses, heights = _pulses(seconds, pitch, rng)
    strength = _envelope(pulses, starts, lengths)
    middles = starts + lengths / 2
    formants = np.stack([np.interp(pulses, middles, vowels[:, f]) for f in range(4)], 1)
    sound = _excite(pulses, strength * heights, formants, samples, sample_rate)
    sound += _noise_bursts(starts, samples, sample_rate, rng) * 0.25 * np.abs(sound).max()
    edge = min(round(0.02 * sample_rate), samples)
    if edge:
        sound[-edge:] *= np.linspace(1, 0, edge)
        sound /= np.abs(sound).max() + 1e-9
    return sound.astype(np.float32)


def _syllables(seconds: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw onsets and lengths of the syllables in seconds, with a pause after every phrase."""
    starts, lengths, now, count = [], [], 0.02, 0
    while not starts or now < seconds - 0.1:
        length = rng.uniform(0.7, 1.3) / SYLLABLES_PER_SECOND
        starts.append(now)
        lengths.append(length * 0.85)
        now, count = now + length, count + 1
        if count % SYLLABLES_PER_PHRASE == 0:
            now += rng.uniform(0.2, 0.45)
    return np.array(starts), np.array(lengths)


def _pulses(
    seconds: float, pitch: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw times and strengths of the glottal pulses; the pitch falls and varies as in speech."""
    count = int(seconds * pitch * 1.5) + 2
    phrase = SYLLABLES_PER_PHRASE / SYLLABLES_PER_SECOND
    t = np.arange(count) / (pitch * 1.05)
    melody = 1.15 - 0.3 * ((t / phrase) % 1.0) + 0.08 * np.sin(2 * np.pi * 2.1 * t)
    jitter = 1 + 0.01 * rng.standard_normal(count)
    times = np.cumsum(1 / (pitch * melody * jitter))
    times = times[times < seconds - PULSE_SECONDS]
    return times, 1 + 0.05 * rng.standard_normal(len(times))


def _envelope(times: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the loudness in [0, 1] at the times: one arch per syllable."""
    index = np.maximum(np.searchsorted(starts, times, 'right') - 1, 0)
    phase = (times - starts[index]) / lengths[index]
    return np.where((phase >= 0) & (phase <= 1), np.sin(np.pi * np.clip(phase, 0, 1)) ** 0.6, 0.0)


def _excite(
    pulses: np.ndarray, strength: np.ndarray, formants: np.ndarray, samples: int, rate: int
) -> np.ndarray:
    """Sum a burst of decaying sinusoids at every pulse."""
    length = round(PULSE_SECONDS * rate)
    t = np.arange(length) / rate
    decay = LEVELS[:, None] * np.exp(-np.pi * BANDWIDTHS[:, None] * t)
    decay = decay * np.minimum(t / 0.0008, 1.0) * np.minimum((t[-1] - t) / 0.003, 1.0)
    sound = np.zeros(samples + length)
    for moment, height, hz in zip(pulses, strength, formants):
        if height > 0.01:
            start = int(moment * rate)
            burst = (decay * np.sin(2 * np.pi * hz[:, None] * t)).sum(0)
            sound[start : start + length] += height * burst
    return sound[:samples]


def _noise_bursts(
    starts: np.ndarray, samples: int, rate: int, rng: np.random.Generator
) -> np.ndarray:
    """Add a consonant-like noise burst before about half of the syllables."""
    sound = np.zeros(samples)
    length = round(0.07 * rate)
    window = np.hanning(length)
    band = signal.butter(2, (2500, 7500), 'bandpass', fs=rate, output='sos')
    for start in starts[rng.random(len(starts)) < 0.5]:
        first = max(int((start - 0.05) * rate), 0)
        noise = signal.sosfilt(band, rng.standard_normal(length)) * window
        piece = sound[first : first + length]
        piece += noise[: len(piece)]
    return sound
