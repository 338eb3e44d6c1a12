"""The vocabulary of AVST and the systems after it: the words of the train questions.

As in AVST's released loader, words are separated by spaces, capitals count, the question mark is
dropped, and a question is padded to 14 words with word 0.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from amuse_jax.music_avqa import Question, vocabulary

LENGTH = 14  # words of the longest question of MUSIC-AVQA


class TrainWords:
    """Turns questions into numbers of words.

    The released code has no number for a word that no train question has, and stops there. Here
    such a word becomes word 0, the padding, and a question is cut off after LENGTH words: the
    rephrased questions of MUSIC-AVQA-R have both.

    Args:
      train: the train questions. Words have numbers in the order of their first appearance.
    """

    def __init__(self, train: Iterable[Question]):
        words = dict.fromkeys(
            word for question in train for word in vocabulary.split_words(question.text)
        )
        self._numbers = {word: number for number, word in enumerate(words, 1)}

    def __len__(self) -> int:
        """The number of words, with the padding."""
        return len(self._numbers) + 1

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Encode n questions.

        Returns:
          Numbers of words (n, LENGTH) int32, and a mask of the same shape, True on words and False
          on padding.
        """
        numbers = np.zeros((len(texts), LENGTH), np.int32)
        mask = np.zeros((len(texts), LENGTH), bool)
        for row, text in enumerate(texts):
            words = vocabulary.split_words(text)[:LENGTH]
            numbers[row, : len(words)] = [self._numbers.get(word, 0) for word in words]
            mask[row, : len(words)] = True
        return numbers, mask

    def losses(self, text: str) -> list[str]:
        """Say which parts of a question a model does not see; [] if it sees all of it."""
        words, found = vocabulary.split_words(text), []
        unknown = [word for word in dict.fromkeys(words[:LENGTH]) if word not in self._numbers]
        if unknown:
            found.append(f'no train question has {", ".join(map(repr, unknown))}')
        if len(words) > LENGTH:
            found.append(f'{" ".join(words[LENGTH:])!r} is behind word {LENGTH} and is cut off')
        return found
