"""What both sides are given: batches as the pipeline makes them, with random content."""

from collections.abc import Mapping

import numpy as np
import torch
from ml_collections import ConfigDict

from amuse_jax.data.pipeline import Batch
from amuse_jax.media.log_mel import LogMel
from amuse_jax.models.amuse import Phrases
from amuse_jax.models.summary import BERT_WORDS, CLASSES
from amuse_jax.music_avqa import vocabulary

QUESTIONS = 5  # about one video: as many as a video of MUSIC-AVQA has, about
_CLS, _FIRST_WORD = 101, 1000  # BERT's ids
PER_QUESTION = ('words', 'word_mask', 'answers')  # arrays of a batch, beside the weights


def phrases() -> Phrases:
    """Names of one to three word pieces, so that no tokenizer is needed."""
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


def draw(config: ConfigDict, videos: int = 1, questions: int = 1) -> Batch:
    """A batch of pipeline.QuestionBatches with frames and log-mels: videos that have all segments,
    questions of different lengths, each answered."""
    random = np.random.default_rng(0)
    words = _questions(random, (videos, questions), config.model.text.max_words)
    return {
        **words,
        'weights': np.ones((videos, questions), np.float32),
        **_media(random, config, videos),
        **features(config, videos),
    }


def features(config: ConfigDict, videos: int) -> Batch:
    """What the stages pretrain and rois leave of each video."""
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


def sample(batch: Mapping[str, np.ndarray], question: int) -> dict[str, torch.Tensor]:
    """The batch's videos with one question each, as the reference takes them."""
    chosen = {
        name: array[:, question] if name in PER_QUESTION else array
        for name, array in batch.items()
        if name != 'weights'
    }
    tensors = {name: torch.from_numpy(np.ascontiguousarray(x)) for name, x in chosen.items()}
    return {name: x.long() if x.dtype == torch.int32 else x for name, x in tensors.items()}


def _questions(random: np.random.Generator, lead: tuple[int, int], length: int) -> Batch:
    mask = np.arange(length) < random.integers(length // 3, length + 1, lead)[..., None]
    words = random.integers(_FIRST_WORD, BERT_WORDS, mask.shape) * mask
    words[..., 0] = _CLS
    return {
        'words': words.astype(np.int32),
        'word_mask': mask,
        'answers': random.integers(0, len(vocabulary.ANSWERS), lead).astype(np.int32),
    }


def media_shapes(config: ConfigDict, videos: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of frames and of log-mels."""
    segments, side = config.data.segments, config.data.image_size
    return (videos, segments, side, side, 3), (videos, *LogMel.from_settings(config).shape)


def _media(random: np.random.Generator, config: ConfigDict, videos: int) -> Batch:
    frames, log_mel = media_shapes(config, videos)
    return {
        'frames': random.integers(0, 256, frames, np.uint8),
        'log_mel': random.uniform(-80, 0, log_mel).astype(np.float32),
    }
