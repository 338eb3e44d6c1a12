"""Which questions a model has met: their words and their forms."""

import dataclasses
import re
from collections.abc import Iterable

from amuse_jax.music_avqa import Question, vocabulary

_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
_BLANK = '<>'
_VALUES = sorted({v for values in vocabulary.PLACEHOLDERS.values() for v in values}, key=len)


@dataclasses.dataclass(frozen=True)
class Familiar:
    """The words and the forms of the questions that a model was trained on.

    A form is a question in lower case in which blanks stand for instruments, sides and ranks, as in
    'how many sounding <> in the video'.

    Attributes:
      words: the words, in lower case.
      forms: the forms.
    """

    words: frozenset[str]
    forms: frozenset[str]

    @classmethod
    def from_questions(cls, questions: Iterable[Question]) -> 'Familiar':
        """Collect the words and forms of the train questions among these."""
        texts = {question.text for question in questions if question.split == 'train'}
        words = {word for text in texts for word in _words(text)}
        return cls(frozenset(words), frozenset(map(form_of, texts)))

    @classmethod
    def from_json(cls, value: dict) -> 'Familiar':
        """Read what `to_json` has returned."""
        return cls(frozenset(value['words']), frozenset(value['forms']))

    def to_json(self) -> dict:
        """Return the words and forms as sorted lists."""
        return {'words': sorted(self.words), 'forms': sorted(self.forms)}

    def describe_new(self, question: str) -> list[str]:
        """Say what in a question the model has not met in training; [] if it knows all of it."""
        new = [word for word in dict.fromkeys(_words(question)) if word not in self.words]
        if new:
            return [f'no question of the training has the word {", ".join(map(repr, new))}']
        if form_of(question) not in self.forms:
            return ['no question of the training has this form']
        return []


def form_of(question: str) -> str:
    """Return the question in lower case, without punctuation, and with a blank for each value."""
    words = ' '.join(_words(question))
    values = '|'.join(re.escape(value.replace('_', ' ')) for value in reversed(_VALUES))
    return re.sub(rf'\b(?:{values})\b', _BLANK, words)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.replace('_', ' ').lower())
