"""The question tokenizer: it turns questions, answers and class names into the text tower's tokens.

The tokenizer named 'questions' needs no download. Its WordPiece vocabulary is built here, in a
fixed order, from every word of the 33 templates, their values and the 42 answers. It also contains
single letters, so that any other word is still encoded, in pieces.
"""

import re
import string
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tokenizers
from ml_collections import ConfigDict
from tokenizers import models, normalizers, pre_tokenizers, processors

from amuse_jax.errors import StageError
from amuse_jax.music_avqa import vocabulary
from amuse_jax.system import paths

PERSONS = ('player', 'person')  # detector class names for the people who play

_SPECIAL = ('[PAD]', '[UNK]', '[CLS]', '[SEP]')
_HUB_TIMEOUT_SECONDS = 5.0


class QuestionTokenizer:
    """A tokenizer of the BERT or RoBERTa family, for questions and for class names.

    Args:
      settings: `config.model.text`; its `tokenizer` and `max_words` are read. `tokenizer` is
        'questions', the path of a `tokenizer.json` or `vocab.txt`, or a name on the Hugging Face
        hub.

    Attributes:
      max_words: N, the length of an encoded question, with special tokens and padding.
      vocab_size: number of token ids, and so of the tower's word embeddings.
      pad_id: token id of padding.

    Raises:
      StageError: the tokenizer cannot be read or downloaded.
    """

    def __init__(self, settings: ConfigDict):
        self.max_words: int = settings.max_words
        self._tokenizer = _load(settings.tokenizer)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self.max_words)
        self.vocab_size: int = self._tokenizer.get_vocab_size()
        self.pad_id: int = _pad_id(self._tokenizer)

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Encode questions, with special tokens.

        A question of more than max_words tokens is truncated before its final special token.

        Returns:
          Token ids (n, max_words) int32, and a mask (n, max_words) bool, True on tokens and False
          on padding.
        """
        encodings = self._tokenizer.encode_batch([_normalise(text) for text in texts])
        return self._pad([encoding.ids for encoding in encodings], self.max_words)

    def encode_names(self, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Encode the names of answers, instruments or classes, without special tokens.

        Returns:
          Token ids (n, length of the longest name) int32, and a mask of the same shape, True on
          tokens and False on padding.
        """
        encodings = self._tokenizer.encode_batch(
            [_normalise(name) for name in names], add_special_tokens=False
        )
        ids = [encoding.ids for encoding in encodings]
        return self._pad(ids, max(map(len, ids), default=0))

    def losses(self, text: str) -> list[str]:
        """Say which parts of a question the model does not see; [] if it sees all of it.

        Unknown words become one token that stands for all of them, and everything behind the limit
        of `max_words` is cut off.
        """
        text = _normalise(text)
        encoding = self._tokenizer.encode(text)
        pieces = [encoding, *encoding.overflowing]
        found = []
        unknown = self._tokenizer.token_to_id('[UNK]')
        words = {
            text[slice(*offsets)]: None
            for piece in pieces
            for index, offsets in zip(piece.ids, piece.offsets)
            if index == unknown
        }
        if words:
            found.append(f'the tokenizer does not know {", ".join(map(repr, words))}')
        if len(pieces) > 1:
            start = max(end for _, end in encoding.offsets)
            found.append(
                f'{text[start:].strip()!r} is behind the limit of {self.max_words} tokens '
                '(model.text.max_words) and is cut off'
            )
        return found

    def is_blank(self, text: str) -> bool:
        """Return whether a question has no word or letter that the tokenizer knows."""
        text = _normalise(text)
        encoding = self._tokenizer.encode(text)
        unknown = self._tokenizer.token_to_id('[UNK]')
        known = [
            text[slice(*at)]
            for index, at in zip(encoding.ids, encoding.offsets)
            if index != unknown
        ]
        return not any(letter.isalnum() for piece in known for letter in piece)

    def to_tokens(self, ids: Sequence[int]) -> list[str]:
        """Return the tokens of one row of ids as strings."""
        return [self._tokenizer.id_to_token(int(index)) for index in ids]

    def save(self, path: Path) -> None:
        """Write a `tokenizer.json`, which pads and truncates to max_words by itself."""
        saved = tokenizers.Tokenizer.from_str(self._tokenizer.to_str())
        token = saved.id_to_token(self.pad_id)
        saved.enable_padding(pad_id=self.pad_id, pad_token=token, length=self.max_words)
        saved.save(str(path))

    def _pad(self, rows: list[list[int]], length: int) -> tuple[np.ndarray, np.ndarray]:
        ids = np.full((len(rows), length), self.pad_id, np.int32)
        mask = np.zeros((len(rows), length), bool)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
            mask[index, : len(row)] = True
        return ids, mask


def question_vocabulary() -> tuple[str, ...]:
    """Return the tokens of the tokenizer 'questions'; the position of a token is its id.

    They are the special tokens, punctuation, single letters and digits, the same as word pieces,
    and the words in alphabetical order.
    """
    texts = [re.sub('<[^<>]+>', ' ', template) for template in vocabulary.TEMPLATES]
    texts += [value for values in vocabulary.PLACEHOLDERS.values() for value in values]
    texts += [*vocabulary.ANSWERS, *PERSONS]
    letters = string.ascii_lowercase + string.digits
    words = {word for text in texts for word in re.findall('[a-z]+', _normalise(text).lower())}
    pieces = [f'##{letter}' for letter in letters]
    return (*_SPECIAL, *string.punctuation, *letters, *pieces, *sorted(words - set(letters)))


def _normalise(text: str) -> str:
    """Replace underscores by spaces, and the full-width question mark of one template by '?'."""
    return text.replace('_', ' ').replace('\uff1f', '?')


def _load(name: str) -> tokenizers.Tokenizer:
    if name == 'questions':
        return _word_piece(list(question_vocabulary()), lowercase=True)
    path = paths.from_user(name, 'config.model.text.tokenizer')
    if path.is_file():
        return _from_file(path)
    if path.suffix in ('.json', '.txt') or name.count('/') > 1:
        raise StageError(
            f'model.text.tokenizer: there is no file {name}; expected "questions", a '
            'tokenizer.json, a vocab.txt or a name on the Hugging Face hub'
        )
    return _from_hub(name)


def _from_file(path: Path) -> tokenizers.Tokenizer:
    if path.suffix == '.txt':
        words = path.read_text('utf-8').splitlines()
        missing = [word for word in _SPECIAL if word not in words]
        if missing:
            raise StageError(
                f'{path} is not a BERT vocabulary: {", ".join(missing)} is missing; expected a '
                'vocab.txt with one word per line'
            )
        # Cased BERT vocabularies contain 'The', uncased ones only 'the'.
        return _word_piece(words, lowercase='The' not in words)
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise StageError(
            f'{path} is not a tokenizer: {error}; expected a tokenizer.json or a vocab.txt'
        ) from error


def _from_hub(name: str) -> tokenizers.Tokenizer:
    """Load from the local cache or the hub.

    A short request to the hub goes first, because the library itself retries for 30 s.
    """
    import huggingface_hub
    from huggingface_hub import constants, utils

    cached = huggingface_hub.try_to_load_from_cache(name, 'tokenizer.json')
    if isinstance(cached, str):
        return _from_file(Path(cached))
    url = huggingface_hub.hf_hub_url(name, 'tokenizer.json')
    advice = (
        f'download {url} on another machine and give its path, or set model.text.tokenizer to '
        '"questions", which needs no download'
    )
    if constants.HF_HUB_OFFLINE:
        raise StageError(
            f'the tokenizer {name} is not in the local cache, and access to the hub is switched '
            f'off (HF_HUB_OFFLINE); {advice}'
        )
    session = utils.get_session()
    try:
        session.head(url, timeout=_HUB_TIMEOUT_SECONDS)
        return tokenizers.Tokenizer.from_pretrained(name)
    except Exception as error:  # errors of the network and the hub have no common class
        raise StageError(
            f'the tokenizer {name} could not be loaded from the Hugging Face hub ({error}); '
            f'{advice}'
        ) from error


def _word_piece(words: list[str], lowercase: bool) -> tokenizers.Tokenizer:
    """Return BERT's tokenizer with this vocabulary; the id of words[i] is i."""
    ids = {word: index for index, word in enumerate(words)}
    tokenizer = tokenizers.Tokenizer(models.WordPiece(ids, unk_token='[UNK]'))
    tokenizer.add_special_tokens(list(_SPECIAL))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(
        ('[SEP]', ids['[SEP]']), ('[CLS]', ids['[CLS]'])
    )
    return tokenizer


def _pad_id(tokenizer: tokenizers.Tokenizer) -> int:
    for word in ('[PAD]', '<pad>'):  # BERT, RoBERTa
        if tokenizer.token_to_id(word) is not None:
            return tokenizer.token_to_id(word)
    raise StageError(
        'model.text.tokenizer: the tokenizer has neither [PAD] nor <pad>; expected one of the BERT '
        'or RoBERTa family'
    )
