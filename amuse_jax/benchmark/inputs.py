"""Inputs for both sides: batches in the pipeline's format with random content."""

from collections.abc import Mapping

import numpy as np
import torch
from ml_collections import ConfigDict

from amuse_jax.data.pipeline import Batch
from amuse_jax.media.log_mel import LogMel
from amuse_jax.models.amuse import Phrases
from amuse_jax.models.summary import BERT_WORDS, CLASSES
from amuse_jax.music_avqa import vocabulary

QUESTIONS = 5  # per video: about as many as MUSIC-AVQA has
_CLS, _FIRST_WORD = 101, 1000  # token ids of BERT
PER_QUESTION = ('words', 'word_mask', 'answers')  # arrays with a question axis, except the weights


def random_phrases() -> Phrases:
    """Return names of one to three random word pieces, so that no tokenizer is needed."""
    random = np.random.default_rng(1)

    def rows(names):
        mask = np.arange(3) < random.integers(1, 4, len(names))[:, None]
        ids = random.integers(_FIRST_WORD, BERT_WORDS, mask.shape) * mask
        return tuple(map(tuple, ids.tolist())), tuple(map(tuple, mask.tolist()))

    return Phrases(
        vocab_size=BERT_WORDS,
        answers=rows(vocabulary.ANSWERS),
        instruments=rows(vocabulary.INSTRUMENTS),
        classes=rows(CLASSES),
        is_instrument=tuple(name in vocabulary.INSTRUMENTS for name in CLASSES),
    )


def random_batch(config: ConfigDict, videos: int = 1, questions: int = 1) -> Batch:
    """Return a random batch of pipeline.QuestionBatches with frames and log-mels.

    Every video has all segments; the questions have different lengths, and each has an answer.

    Args:
      config: the sizes.
      videos: the number of videos.
      questions: the number of questions per video.
    """
    random = np.random.default_rng(0)
    words = _questions(random, (videos, questions), config.model.text.max_words)
    return {
        **words,
        'weights': np.ones((videos, questions), np.float32),
        **_media(random, config, videos),
        **random_features(config, videos),
    }


def random_features(config: ConfigDict, videos: int) -> Batch:
    """Return random arrays in place of those that the stages pretrain and rois store per video."""
    random = np.random.default_rng(2)
    lead = videos, config.data.segments
    regions = (*lead, config.rois.regions)
    corner = random.uniform(0, 0.7, (*regions, 2))
    extent = random.uniform(0.05, 0.3, (*regions, 2))
    widths = {'visual': 8 * config.model.visual.width, 'audio': 8 * config.model.audio.width}
    streams = {
        f'{encoder}_{part}': random.normal(size=(*lead, width))
        for encoder in ('rhythm', 'source')
        for part, width in widths.items()
    }
    floats = {
        **streams,
        'rhythm': random.uniform(size=lead),
        'sources': random.uniform(size=(*lead, len(vocabulary.INSTRUMENTS))),
        'boxes': np.concatenate([corner, corner + extent], axis=-1),
        'scores': random.uniform(0.3, 1, regions),
        'features': random.normal(size=(*regions, config.rois.feature_size)),
    }
    return {name: array.astype(np.float32) for name, array in floats.items()} | {
        'segment_mask': np.ones(lead, bool),
        'classes': random.integers(-1, len(CLASSES), regions).astype(np.int32),
    }


def torch_batch(
    batch: Mapping[str, np.ndarray], question: int | None = None
) -> dict[str, torch.Tensor]:
    """Return a batch as PyTorch tensors for the reference.

    Args:
      batch: a batch.
      question: the index of one question about every video; None: all questions, those about a
        video consecutively.
    """

    def select(array: np.ndarray) -> np.ndarray:
        lead = array.shape[0] * array.shape[1]
        return array.reshape(lead, *array.shape[2:]) if question is None else array[:, question]

    chosen = {
        name: select(array) if name in PER_QUESTION else array
        for name, array in batch.items()
        if name != 'weights'
    }
    tensors = {name: torch.from_numpy(np.ascontiguousarray(x)) for name, x in chosen.items()}
    return {name: x.long() if x.dtype == torch.int32 else x for name, x in tensors.items()}


def _questions(random: np.random.Generator, lead: tuple[int, int], length: int) -> Batch:
    """Return random questions; `lead` is (videos, questions) and `length` their longest length."""
    mask = np.arange(length) < random.integers(length // 3, length + 1, lead)[..., None]
    words = random.integers(_FIRST_WORD, BERT_WORDS, mask.shape) * mask
    words[..., 0] = _CLS
    return {
        'words': words.astype(np.int32),
        'word_mask': mask,
        'answers': random.integers(0, len(vocabulary.ANSWERS), lead).astype(np.int32),
    }


def media_shapes(config: ConfigDict, videos: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of the frames (B, T, S, S, 3) and the log-mels (B, T, F, mels)."""
    segments, side = config.data.segments, config.data.image_size
    return (videos, segments, side, side, 3), (videos, *LogMel.from_settings(config).shape)


def _media(random: np.random.Generator, config: ConfigDict, videos: int) -> Batch:
    frames, log_mel = media_shapes(config, videos)
    return {
        'frames': random.integers(0, 256, frames, np.uint8),
        'log_mel': random.uniform(-80, 0, log_mel).astype(np.float32),
    }
