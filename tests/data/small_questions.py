"""Questions, tokenizers and records for tests of batches, without files of a data set."""

import dataclasses
import json

import numpy as np

from amuse_jax.data import question_table
from amuse_jax.music_avqa import Question


class Tokenizer:
    """A tokenizer that encodes a question as the number at its end."""

    def encode(self, texts):
        words = np.array([[1, int(text.split()[-1])] for text in texts], np.int32)
        return words, words > 0

    def losses(self, text):
        return []


class Sides:
    """A tokenizer that counts how often a question says left and right."""

    def encode(self, texts):
        words = np.array([[text.count('left'), text.count('right')] for text in texts], np.int32)
        return words, words > 0

    def losses(self, text):
        return []


class Reader:
    """A reader of two records of three segments; in the second the third segment is missing."""

    def __getitem__(self, index):
        random = np.random.default_rng(index)
        exists = np.arange(3) < 3 - index
        return {
            'frames': random.integers(0, 255, (3, 4, 4, 3), np.uint8),
            'log_mel': random.normal(size=(3, 5, 2)).astype(np.float16),
            'frame_mask': exists,
            'audio_mask': exists,
        }


def question(record, number, split='train', answer='yes'):
    return Question(
        question_id=f'{record}-{number}', video_id=f'v{record}', sound_id=f'v{record}', split=split,
        modality='Audio', kind='Counting', template='t', values=(), text=f'q {number}',
        answer=answer,
    )  # fmt: skip


def table_of(folder, questions, tokenizer):
    rows = [dataclasses.asdict(q) | {'record': int(q.video_id[1:])} for q in questions]
    (folder / 'questions.json').write_text(json.dumps(rows))
    return question_table.read(folder, tokenizer)
