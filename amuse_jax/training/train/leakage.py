"""Which questions a trained model knows already, kept beside its checkpoints.

MUSIC-AVQA's versions deal the same questions out to other splits: of the 10,819 test questions of
version 2, version 1 trains on 3,154 and validates on 416. An accuracy on questions that a model
was trained on, or chosen by, says little about others.
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
# Of the test questions. MUSIC-AVQA's own splits repeat some: at least 9 of version 1's 9,129.
TOLERATED = 0.01


def write(folder: Path, questions: Sequence[Question]) -> None:
    """Keeps the questions' hashes in `folder` of the train stage: sorted, each once."""
    hashes = np.unique([_hash(question) for question in questions])
    write_atomically(folder / FILE, lambda beside: np.save(beside, hashes))


def among(folder: Path, questions: Sequence[Question]) -> np.ndarray:
    """Which of the questions the model in `folder` knows.

    A question counts as known in any of its wordings: MUSIC-AVQA-R words a question of version 1 in
    some 25 ways, under one question_id.

    Returns:
      (n,) bool.

    Raises:
      StageError: the folder does not say what its model was trained on.
    """
    path = folder / FILE
    try:
        known = np.load(path, allow_pickle=False)
        if known.dtype != np.uint64 or known.ndim != 1:
            raise ValueError(f'it holds {known.dtype} {known.shape}, expected a list of uint64')
    except (OSError, EOFError, ValueError) as error:
        raise StageError(
            f'{path} cannot be read ({error}), so it is unknown which questions the model was '
            f'trained on; delete {folder} to train it again'
        ) from error
    found = np.isin(np.array([_hash(question) for question in questions], np.uint64), known)
    ids = [(q.video_id, q.sound_id, q.question_id) for q in questions]
    known_ids = {ids[index] for index in np.flatnonzero(found)}
    return np.array([each in known_ids for each in ids], bool)


def check(is_seen: np.ndarray, leaked: str) -> None:
    """Refuses test questions too many of which the model knows.

    Args:
      is_seen: what `among` returned.
      leaked: config.evaluate.leaked.

    Raises:
      StageError: 'refuse' and more than one in a hundred is known; 'apart' and all are.
    """
    count, total = int(is_seen.sum()), len(is_seen)
    found = f'{count:,} of the {total:,} test questions are among those that the model was trained '
    found += 'or validated on'
    if leaked == 'apart' and count == total:
        raise StageError(f'{found}: no other is left to evaluate it on; take another test set')
    if leaked == 'refuse' and count > TOLERATED * total:
        raise StageError(
            f'{found}, so their accuracy would say little (versions 1 and 2 of MUSIC-AVQA share '
            'questions); take another test set, or report known and other questions apart: '
            '--config.evaluate.leaked=apart'
        )


def _hash(question: Question) -> np.uint64:
    """The first 8 bytes of SHA-256 over the identity as JSON, big-endian.

    The text counts without case, spacing and question mark, which some files leave out.
    """
    video_id, sound_id, text = question.identity
    plain = ' '.join(text.rstrip(' ?').casefold().split())
    digest = hashlib.sha256(json.dumps([video_id, sound_id, plain]).encode()).digest()
    return np.frombuffer(digest[:8], '>u8').astype(np.uint64)[0]
