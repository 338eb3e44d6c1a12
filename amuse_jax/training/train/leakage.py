"""Test-set leakage: finds test questions on which a model was trained or validated.

MUSIC-AVQA's versions assign the same questions to different splits: version 1 trains on 3,154 of
the 10,819 test questions of version 2, and validates on 416 of them. The accuracy on questions that
a model was trained on, or selected by, says little about its accuracy on new questions.

The train stage stores hashes of its questions in seen.npy beside its checkpoints.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from amuse_jax.errors import StageError
from amuse_jax.music_avqa import Question
from amuse_jax.system.files import write_atomically

FILE = 'seen.npy'
# Share of leaked test questions that is accepted. MUSIC-AVQA's own splits repeat some questions: at
# least 9 of the 9,129 test questions of version 1.
TOLERATED = 0.01


def save_known_questions(folder: Path, questions: Sequence[Question]) -> None:
    """Save the sorted, unique hashes of the questions in `folder`, the train stage's folder."""
    hashes = np.unique([_hash(question) for question in questions])
    write_atomically(folder / FILE, lambda temporary: np.save(temporary, hashes))


def find_leaked(folder: Path, questions: Sequence[Question]) -> np.ndarray:
    """Return which of the questions leaked into the training of the model in `folder`.

    A question counts as leaked in all its wordings if one of them has leaked: MUSIC-AVQA-R has
    about 25 wordings for each question of version 1, all with the same question_id.

    Args:
      folder: the train stage's folder.
      questions: n test questions.

    Returns:
      (n,) bool, True = the model was trained or validated on the question.

    Raises:
      StageError: the file of hashes is missing or damaged.
    """
    path = folder / FILE
    try:
        known_hashes = np.load(path, allow_pickle=False)
        if known_hashes.dtype != np.uint64 or known_hashes.ndim != 1:
            raise ValueError(
                f'it holds {known_hashes.dtype} {known_hashes.shape}, expected a list of uint64'
            )
    except (OSError, EOFError, ValueError) as error:
        raise StageError(
            f'{path} cannot be read ({error}), so it is unknown which questions the model was '
            'trained on; --redo=train trains it again'
        ) from error
    hashes = np.array([_hash(question) for question in questions], np.uint64)
    ids = [(q.video_id, q.sound_id, q.question_id) for q in questions]
    leaked_ids = {ids[index] for index in np.flatnonzero(np.isin(hashes, known_hashes))}
    return np.array([each in leaked_ids for each in ids], bool)


def check(is_leaked: np.ndarray, leaked: str) -> None:
    """Refuse a test set with too many leaked questions.

    Args:
      is_leaked: the result of `find_leaked`.
      leaked: config.evaluate.leaked: 'refuse' or 'apart' (report leaked questions separately).

    Raises:
      StageError: with 'refuse', more than one question in a hundred has leaked; with 'apart', all
        questions have leaked.
    """
    count, total = int(is_leaked.sum()), len(is_leaked)
    message = f'{count:,} of the {total:,} test questions leaked: the model was trained or '
    message += 'validated on them'
    if leaked == 'apart' and count == total:
        raise StageError(f'{message}. No other question is left to evaluate; use another test set')
    if leaked == 'refuse' and count > TOLERATED * total:
        raise StageError(
            f'{message}, so the accuracy would say little (versions 1 and 2 of MUSIC-AVQA share '
            'questions). Use another test set, or report leaked questions separately with '
            '--config.evaluate.leaked=apart'
        )


def _hash(question: Question) -> np.uint64:
    """Return the first 8 bytes, big-endian, of the SHA-256 of the question's identity as JSON.

    Case, spacing and the final question mark are ignored, because annotation files differ in them.
    """
    video_id, sound_id, text = question.identity
    normalised = ' '.join(text.rstrip(' ?').casefold().split())
    digest = hashlib.sha256(json.dumps([video_id, sound_id, normalised]).encode()).digest()
    return np.frombuffer(digest[:8], '>u8').astype(np.uint64)[0]
