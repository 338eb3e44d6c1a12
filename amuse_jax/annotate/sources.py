"""Source frequencies from separated stems: how often each instrument sounds (Sec. 3.2, ii).

The paper separates the sound into sources and counts "how often the specified instruments appear"
per segment. Here a segment is divided into windows, and the frequency of an instrument is

  number of (stem of that instrument, window) pairs in which the stem sounds / number of windows

A stem sounds in a window if its RMS level is above a threshold. The frequency of an instrument is 0
if it is silent and 1 if it sounds throughout the segment. For two violins that both play throughout
the segment it is 2.
"""

import json
from pathlib import Path

import numpy as np
import soundfile

from amuse_jax.errors import StageError
from amuse_jax.music_avqa import rows
from amuse_jax.music_avqa.vocabulary import INSTRUMENTS


def frequencies(
    stems: np.ndarray,
    owners: np.ndarray,
    sample_rate: int,
    *,
    segments: int,
    segment_seconds: float,
    window_seconds: float,
    threshold_db: float,
) -> np.ndarray:
    """Compute the frequency of every instrument in every segment.

    Args:
      stems: (samples, stems), float32 with full scale 1, or int16. After its end a stem is silent.
      owners: (stems,) int, the instrument of each stem as an index into INSTRUMENTS; stems with -1
        are not counted.
      sample_rate: samples per second.
      segments: number of segments T.
      segment_seconds: length of a segment; a multiple of `window_seconds`.
      window_seconds: length of a window.
      threshold_db: RMS level, in dB relative to full scale, above which a stem sounds.

    Returns:
      (T, 22) float32, 0 for a silent instrument.

    Raises:
      StageError: a segment is not a whole number of windows.
    """
    windows = windows_per_segment(segment_seconds, window_seconds)
    levels = levels_db(stems, round(window_seconds * sample_rate), segments * windows)
    sounds = (levels > threshold_db).reshape(segments, windows, len(owners)).mean(axis=1)
    is_owner = owners[:, None] == np.arange(len(INSTRUMENTS))
    return (sounds @ is_owner).astype(np.float32)


def windows_per_segment(segment_seconds: float, window_seconds: float) -> int:
    """Return the number of windows in a segment.

    Raises:
      StageError: it is not a whole number.
    """
    windows = round(segment_seconds / window_seconds)
    if windows < 1 or abs(windows * window_seconds - segment_seconds) > 1e-6:
        raise StageError(
            f'config.sources.window_seconds is {window_seconds}, which does not divide '
            f'config.data.segment_seconds = {segment_seconds}; expected a whole number of windows '
            'per segment'
        )
    return windows


def levels_db(stems: np.ndarray, window: int, count: int) -> np.ndarray:
    """Compute the RMS level of every window of every stem.

    Args:
      stems: (samples, stems), float32 with full scale 1, or int16.
      window: number of samples per window.
      count: number of windows; shorter stems are padded with silence, longer ones are cut off.

    Returns:
      (count, stems) float64 in dB relative to full scale; -inf for digital silence.
    """
    scale = 2.0**15 if stems.dtype == np.int16 else 1.0
    power = np.zeros((count, stems.shape[1]))
    for index in range(min(count, -(-len(stems) // window))):
        part = stems[index * window : (index + 1) * window].astype(np.float32)
        power[index] = np.einsum('sc,sc->c', part, part) / (window * scale**2)
    with np.errstate(divide='ignore'):
        return 10.0 * np.log10(power)


def truth_stems(root: Path, video_id: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Read the true stems of a rendered performance, one for each performer who sounds.

    If a performer is heard with another instrument than the one that is seen, the heard instrument
    is the owner of the stem. A voice-over has no owner.

    Args:
      root: the data set's folder, which holds truth/ID.json and truth/ID.flac.
      video_id: video whose sound is read.

    Returns:
      stems (samples, channels) int16, owners (channels,) int as in `frequencies`, and the sample
      rate in Hz.

    Raises:
      StageError: the data set has no truth for this video, or it cannot be read.
    """
    truth = read_truth(root, video_id)
    try:
        stems, sample_rate = soundfile.read(
            root / 'truth' / f'{video_id}.flac', dtype='int16', always_2d=True
        )
    except soundfile.LibsndfileError as error:
        raise StageError(
            f'{root / "truth" / video_id}.flac cannot be read ({error}); render the performances '
            "again, or set config.sources.stems='uss'"
        ) from error
    owners = np.full(stems.shape[1], -1)
    try:
        for performer in truth['performers']:
            if performer['channel'] is not None:
                owners[performer['channel']] = INSTRUMENTS.index(performer['heard_instrument'])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise StageError(
            f'{root / "truth" / video_id}.json does not say which instrument is in which channel '
            f'of the .flac beside it ({type(error).__name__}: {error}); expected "performers" as '
            "the rendered performances have them; or set config.sources.stems='uss'"
        ) from error
    return stems, owners, sample_rate


def read_truth(root: Path, video_id: str) -> dict:
    """Read truth/ID.json, the description of a rendered performance.

    Raises:
      StageError: the file is missing or is not valid JSON.
    """
    path = root / 'truth' / f'{video_id}.json'
    try:
        return json.loads(rows.read_file(path))
    except FileNotFoundError as error:
        found = f'has no {path.relative_to(root)}' if path.parent.is_dir() else 'has no truth/'
        raise StageError(
            f"config.sources.stems is 'truth', but the data set {root} {found}: only rendered "
            "performances have their stems; set config.sources.stems='uss' to separate them"
        ) from error
    except (ValueError, OSError, RecursionError) as error:
        raise StageError(
            f'{path} is not valid JSON ({error}); render the performances again'
        ) from error
