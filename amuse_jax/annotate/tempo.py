"""Beats per minute of an audio: librosa's beat tracker, and its tempo without the beats.

`librosa.beat.beat_track` (Ellis 2007) estimates one tempo from the onset strength of a snippet and
then places beats at that tempo; Eq. 4-6 use the tempo alone. `estimate` computes that number by the
same steps without placing beats. It needs none of librosa's compiled code, whose first use costs
half a minute per machine, and takes a third of the time; the tests hold the two equal.
"""

import functools

import numpy as np
import scipy.fft
import scipy.signal

# librosa's defaults
FFT_SIZE = 2048  # samples
HOP = 512  # samples
MELS = 128
TOP_DB = 80.0
ONSET_DELAY = 1 + FFT_SIZE // (2 * HOP)  # frames from a change to where its onset is noted
AUTOCORRELATION_SECONDS = 8.0
START_BPM = 120.0
OCTAVE_SPREAD = 1.0  # standard deviation of log2(tempo / START_BPM)
MAX_BPM = 320.0

BLOCK = 128  # frames whose spectra fit into a core's cache


def track(waveform: np.ndarray, sample_rate: int) -> float:
    """BT(.) of Eq. 4-5: librosa's beat tracker.

    Args:
      waveform: (samples,) float32.
      sample_rate: Hz.

    Returns:
      Beats per minute; 0.0 where nothing sounds or nothing begins.
    """
    import librosa

    bpm, _ = librosa.beat.beat_track(y=waveform, sr=sample_rate)
    return float(np.atleast_1d(bpm)[0])  # an array, but a float where there is no onset


def estimate(waveform: np.ndarray, sample_rate: int) -> float:
    """The same number as `track`, without its beats."""
    onsets = onset_strength(waveform, sample_rate)
    if not onsets.any():
        return 0.0
    window = int(AUTOCORRELATION_SECONDS * sample_rate) // HOP
    with np.errstate(divide='ignore'):
        bpm = 60.0 * sample_rate / (HOP * np.arange(window))  # of each lag; infinite at lag 0
        prior = -0.5 * ((np.log2(bpm) - np.log2(START_BPM)) / OCTAVE_SPREAD) ** 2
    prior[bpm >= MAX_BPM] = -np.inf
    periodicity = _mean_autocorrelation(onsets, window)
    return float(bpm[np.argmax(np.log1p(1e6 * periodicity) + prior)])


def onset_strength(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Median rise over the mel bands from frame to frame, as `librosa.onset.onset_strength`.

    Args:
      waveform: (samples,) float32.
      sample_rate: Hz.

    Returns:
      (frames,) float32 in dB, one frame per HOP samples.
    """
    padded = np.pad(waveform.astype(np.float32), FFT_SIZE // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT_SIZE)[::HOP]
    window = scipy.signal.get_window('hann', FFT_SIZE).astype(np.float32)
    filters = _mel_filters(sample_rate)
    mel = np.empty((len(frames), MELS), np.float32)
    for start in range(0, len(frames), BLOCK):
        spectrum = scipy.fft.rfft(frames[start : start + BLOCK] * window)
        mel[start : start + BLOCK] = (spectrum.real**2 + spectrum.imag**2) @ filters
    decibel = 10.0 * np.log10(np.maximum(mel, 1e-10))
    decibel = np.maximum(decibel, decibel.max() - TOP_DB)
    rise = np.median(np.maximum(decibel[1:] - decibel[:-1], 0.0), axis=1)
    return np.pad(rise, (ONSET_DELAY, 0))[: len(frames)]


@functools.cache
def _mel_filters(sample_rate: int) -> np.ndarray:
    """(bins, mels) float32."""
    import librosa.filters

    filters = librosa.filters.mel(sr=sample_rate, n_fft=FFT_SIZE, n_mels=MELS)
    return np.ascontiguousarray(filters.T)


def _mean_autocorrelation(onsets: np.ndarray, window: int) -> np.ndarray:
    """The mean over time of librosa's tempogram: autocorrelations of a window, each 1 at lag 0.

    The inverse Fourier transform is linear, so one of the mean spectrum serves all windows.

    Args:
      onsets: (frames,).
      window: frames; also the number of lags.

    Returns:
      (window,) float64.
    """
    padded = np.pad(onsets, window // 2, mode='linear_ramp').astype(np.float64)
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[: len(onsets)]
    frames = frames * scipy.signal.get_window('hann', window)
    size = scipy.fft.next_fast_len(2 * window - 1, real=True)
    mean = np.zeros(size // 2 + 1)
    for start in range(0, len(frames), BLOCK):
        block = frames[start : start + BLOCK]
        energy = np.einsum('fw,fw->f', block, block)  # the autocorrelation at lag 0
        scale = 1.0 / np.where(energy < np.finfo(np.float64).tiny, 1.0, energy)
        spectrum = scipy.fft.rfft(block, n=size)
        mean += scale @ (spectrum.real**2 + spectrum.imag**2)
    return scipy.fft.irfft(mean / len(frames), n=size)[:window]
