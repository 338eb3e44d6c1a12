"""Words for the text tower: questions, answers and class names as token ids.

The tokenizer 'questions' needs no download: a WordPiece vocabulary made here, in one fixed order,
of every word that the 33 templates, their values and the 42 answers can hold, and of single
letters, so that any other word is still encoded, piece by piece.
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

PERSONS = ('player', 'person')  # what a detector calls who plays

_SPECIAL = ('[PAD]', '[UNK]', '[CLS]', '[SEP]')
_HUB_TIMEOUT_SECONDS = 5.0


class QuestionTokenizer:
    """Turns texts into the text tower's token ids.

    Args:
      settings: `config.model.text`; of it `tokenizer` and `max_words` are read. `tokenizer` is
        'questions', the path of a `tokenizer.json` or `vocab.txt`, or a name on the Hugging Face
        hub.

    Attributes:
      max_words: tokens of an encoded question, special tokens and padding included.
      vocab_size: rows of the word table that the tower needs.
      pad_id: the id of padding; its mask is False.

    Raises:
      StageError: the tokenizer cannot be had.
    """

    def __init__(self, settings: ConfigDict):
        self.max_words: int = settings.max_words
        self._tokenizer = _tokenizer(settings.tokenizer)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self.max_words)
        self.vocab_size: int = self._tokenizer.get_vocab_size()
        self.pad_id: int = _pad_id(self._tokenizer)

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Encodes questions with their special tokens; longer ones are cut, their last token kept.

        Returns:
          Token ids (n, max_words) int32, and a mask (n, max_words) bool that is True on tokens.
        """
        encodings = self._tokenizer.encode_batch([_plain(text) for text in texts])
        return self._pad([encoding.ids for encoding in encodings], self.max_words)

    def phrases(self, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Encodes answers, instruments or class names, without special tokens.

        Returns:
          Token ids (n, length of the longest) int32, and a mask of the same shape, True on tokens.
        """
        encodings = self._tokenizer.encode_batch(
            [_plain(name) for name in names], add_special_tokens=False
        )
        ids = [encoding.ids for encoding in encodings]
        return self._pad(ids, max(map(len, ids), default=0))

    def words(self, ids: Sequence[int]) -> list[str]:
        """The tokens of one row of ids, as text."""
        return [self._tokenizer.id_to_token(int(index)) for index in ids]

    def _pad(self, rows: list[list[int]], length: int) -> tuple[np.ndarray, np.ndarray]:
        ids = np.full((len(rows), length), self.pad_id, np.int32)
        mask = np.zeros((len(rows), length), bool)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
            mask[index, : len(row)] = True
        return ids, mask


def question_words() -> tuple[str, ...]:
    """The vocabulary of the tokenizer 'questions': special tokens, signs, word pieces, words."""
    texts = [re.sub('<[^<>]+>', ' ', template) for template in vocabulary.TEMPLATES]
    texts += [value for values in vocabulary.PLACEHOLDERS.values() for value in values]
    texts += [*vocabulary.ANSWERS, *PERSONS]
    letters = string.ascii_lowercase + string.digits
    words = {word for text in texts for word in re.findall('[a-z]+', _plain(text).lower())}
    pieces = [f'##{letter}' for letter in letters]
    return (*_SPECIAL, *string.punctuation, *letters, *pieces, *sorted(words - set(letters)))


def _plain(text: str) -> str:
    return text.replace('_', ' ').replace('\uff1f', '?')


def _tokenizer(name: str) -> tokenizers.Tokenizer:
    if name == 'questions':
        return _word_piece(list(question_words()), lowercase=True)
    path = Path(name)
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
                f'{path} is no vocabulary of BERT: {", ".join(missing)} is missing; expected a '
                'vocab.txt with one word per line'
            )
        # BERT's cased vocabularies hold 'The', its uncased ones only 'the'.
        return _word_piece(words, lowercase='The' not in words)
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise StageError(
            f'{path} is not a tokenizer: {error}; expected a tokenizer.json or a vocab.txt'
        ) from error


def _from_hub(name: str) -> tokenizers.Tokenizer:
    """From the local cache or the hub; one short look first, as the library tries for 30 s."""
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
            f'the tokenizer {name} is not in the local cache and the hub is switched off '
            f'(HF_HUB_OFFLINE); {advice}'
        )
    session = utils.get_session()
    try:
        session.head(url, timeout=_HUB_TIMEOUT_SECONDS)
        return tokenizers.Tokenizer.from_pretrained(name)
    except Exception as error:  # of the network or of the hub: many unrelated classes
        raise StageError(
            f'the tokenizer {name} could not be had from the Hugging Face hub ({error}); {advice}'
        ) from error


def _word_piece(words: list[str], lowercase: bool) -> tokenizers.Tokenizer:
    """BERT's tokenizer over a list of words: id i is words[i]."""
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
    for word in ('[PAD]', '<pad>'):  # BERT's, RoBERTa's
        if tokenizer.token_to_id(word) is not None:
            return tokenizer.token_to_id(word)
    raise StageError(
        'model.text.tokenizer: the tokenizer has neither [PAD] nor <pad>; expected one of the BERT '
        'or RoBERTa family'
    )
