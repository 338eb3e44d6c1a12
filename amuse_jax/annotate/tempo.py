"""Beats per minute of a sound: librosa's beat tracker, and its tempo without the beats.

`librosa.beat.beat_track` (Ellis 2007) estimates one tempo from the onset strength and then places
beats at that tempo. Eq. 4-6 use the tempo alone, so `estimate` leaves the beats out. Both give the
same number; a test holds them equal.
"""

import numpy as np

# librosa is imported inside the functions: its compiled code takes four seconds to load, and half a
# minute on its first use on a machine.


def track(waveform: np.ndarray, sample_rate: int) -> float:
    """Return the tempo that librosa's beat tracker finds, BT(.) of Eq. 4-5.

    Args:
      waveform: (samples,) float32.
      sample_rate: in Hz.

    Returns:
      Beats per minute; 0.0 where the sound has no onset.
    """
    import librosa

    bpm, _ = librosa.beat.beat_track(y=waveform, sr=sample_rate)
    return float(np.atleast_1d(bpm)[0])  # an array, but a float where there is no onset


def estimate(waveform: np.ndarray, sample_rate: int) -> float:
    """Return the same number as `track`, without placing beats.

    Args:
      waveform: (samples,) float32.
      sample_rate: in Hz.

    Returns:
      Beats per minute; 0.0 where the sound has no onset.
    """
    import librosa

    onsets = librosa.onset.onset_strength(y=waveform, sr=sample_rate, aggregate=np.median)
    if not onsets.any():  # librosa.feature.tempo would return its prior, 120
        return 0.0
    return float(librosa.feature.tempo(onset_envelope=onsets, sr=sample_rate)[0])
