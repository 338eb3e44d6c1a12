"""Answers of the trained model to a question about any video file."""

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from amuse_jax.data import pipeline, video_arrays
from amuse_jax.data.records import segment_mask
from amuse_jax.data.tokenizer import QuestionTokenizer
from amuse_jax.errors import StageError
from amuse_jax.evaluation import example_page
from amuse_jax.media import guarded
from amuse_jax.media.log_mel import LogMel
from amuse_jax.media.video import MediaError
from amuse_jax.music_avqa import vocabulary
from amuse_jax.regions import stage as rois
from amuse_jax.training.pretrain import stage as pretrain
from amuse_jax.training.train import answering, predict

NEEDED = ('rois', 'pretrain', 'train')


def run(
    config: ConfigDict, folders: Mapping[str, Path], video: Path, question: str, page_folder: Path
) -> str:
    """Answer `question` about `video` and draw an example page in the style of Fig. 4.

    Args:
      config: the config with which the model was trained.
      folders: folders of the finished stages in NEEDED, by name.
      video: any file that FFmpeg can read.
      question: the question in plain English.
      page_folder: folder to write the page to.

    Returns:
      Text for a terminal: the most probable answers, the importance of each stream, notes on what
      the model did not see, and the path of the page.

    Raises:
      StageError: the question is blank, the video cannot be used, or the model has no answer.
    """
    tokenizer = QuestionTokenizer(config.model.text)
    if tokenizer.is_blank(question):
        raise StageError(
            f'--question is {question!r}, which has no word that the model knows; expected a '
            'question in plain English, such as "Is there a voiceover?"'
        )
    try:
        limits, log_mel = guarded.Limits.from_settings(config.data), LogMel.from_settings(config)
        record = video_arrays.read_video(limits, video, video, config.data.image_size, log_mel)
        regions = rois.find_in_video(config, folders['rois'], video)
    except MediaError as error:
        raise StageError(f'{video} cannot be used: {error.reason}') from error
    finally:
        guarded.close_readers()
    features = _encode(config, folders['pretrain'], record)
    batch = make_batch(record, regions, features, tokenizer, question)
    probabilities, importance = _answer(config, folders, batch)
    if not np.isfinite(probabilities).all():
        raise StageError(
            f'the model has no answer about {video}: its probabilities are not finite; train it '
            'again, or ask about another video'
        )
    page = page_folder / f'{_page_name(video, question)}.png'
    evidence = example_page.Evidence(
        frames=record['frames'],
        shape=record['shape'],
        boxes=regions['boxes'],
        classes=regions['classes'],
        class_names=rois.class_names(folders['rois']),
        sources=features['sources'][0],
        rhythm=features['rhythm'][0],
        labels_from='predicted by the universal encoder',
        segment_seconds=config.data.segment_seconds,
    )
    example_page.draw(evidence, question, probabilities, importance, None, page)
    notes = tokenizer.losses(question) + _describe_cut(config, record['seconds'])
    return _format_answer(question, probabilities, importance, notes, page)


def make_batch(
    record: Mapping,
    regions: Mapping[str, np.ndarray],
    features: Mapping[str, np.ndarray],
    tokenizer: QuestionTokenizer,
    question: str,
) -> dict[str, np.ndarray]:
    """Make the batch of one video and one question, as pipeline.QuestionBatches would.

    Args:
      record: the video's arrays, from `video_arrays.read_video`.
      regions: the video's regions, (T, K, ...) by name.
      features: features and labels of the universal encoder, with a batch axis, by name.
      tokenizer: the tokenizer of the model.
      question: the question.

    Returns:
      Arrays with a batch axis by name.
    """
    words, word_mask = tokenizer.encode([question])
    one_video = {name: record[name] for name in pipeline.RECORD_ARRAYS} | dict(regions)
    batch = {name: array[None] for name, array in one_video.items()} | dict(features)
    batch['segment_mask'] = segment_mask(record)[None]
    return batch | {'words': words[None], 'word_mask': word_mask[None]}


def _encode(config: ConfigDict, folder: Path, record: Mapping) -> dict[str, np.ndarray]:
    """Compute the universal encoder's features and labels of one video, with a batch axis.

    They are rounded as those that training and evaluation read from the disk.
    """
    structure, arrays = pretrain.load(config, folder)

    @jax.jit
    def encode(arrays, frames, log_mel):
        output = structure.merge(arrays)(frames, log_mel)
        return {
            field.name: getattr(output, field.name).astype(jnp.float16)
            for field in dataclasses.fields(output)
        }

    output = encode(arrays, record['frames'][None], record['log_mel'][None])
    return {name: np.asarray(array) for name, array in output.items()}


def _answer(
    config: ConfigDict, folders: Mapping[str, Path], batch: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, dict[str, float]]:
    """Return the probabilities (42,) of the answers and the importance of each stream."""
    model = predict.load_best(config, folders)
    graphdef, state = nnx.split(model)

    @jax.jit
    def answer(state, batch):
        model = nnx.merge(graphdef, state)
        return model(answering.prepare_inputs(model, batch, is_open=config.train.epochs > 0))

    output = answer(state, batch)
    probabilities = np.asarray(jax.nn.softmax(output.logits[0, 0]))
    return probabilities, dict(zip(model.streams, np.asarray(output.importance[0, 0]).tolist()))


def _describe_cut(config: ConfigDict, seconds: float) -> list[str]:
    """Say that the end of a video does not count, if that is so."""
    used = config.data.segments * config.data.segment_seconds
    if not video_arrays.is_cut(seconds, used):
        return []
    return [f'only the first {used:g} s of the video count; its sound lasts {seconds:.0f} s']


def _page_name(video: Path, question: str) -> str:
    """Return a file name that contains the video's name and differs between questions."""
    stem = re.sub(r'[^A-Za-z0-9_-]+', '-', video.stem)[:80]
    return f'{stem}-{hashlib.sha256(question.encode()).hexdigest()[:8]}'


def _format_answer(
    question: str,
    probabilities: np.ndarray,
    importance: Mapping[str, float],
    notes: Sequence[str],
    page: Path,
) -> str:
    best = np.argsort(probabilities)[::-1][:5]
    lines = [f'\n{question}', f'answer: {vocabulary.ANSWERS[best[0]]}', '']
    lines += [f'  {probabilities[index]:6.1%}  {vocabulary.ANSWERS[index]}' for index in best]
    lines += ['', 'importance of each stream:']
    lines += [f'  {weight:6.1%}  {name}' for name, weight in importance.items()]
    lines += ['', *(f'note: {note}' for note in notes)] if notes else []
    return '\n'.join([*lines, '', f'page: {page}'])
