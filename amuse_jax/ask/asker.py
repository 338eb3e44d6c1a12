"""One question about any video file, answered by the trained model."""

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from amuse_jax.data import stage as prepare
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
    """Answers `question` about `video` and draws the page of Fig. 4.

    Args:
      config: the one that the model was trained with.
      folders: of the finished stages NEEDED, by name.
      video: any file that FFmpeg reads.
      question: in plain English.
      page_folder: folder of the page.

    Returns:
      The answer with what it rests on, and where the page is.

    Raises:
      StageError: a video that can't be used.
    """
    try:
        with guarded.Reader(guarded.Limits.from_settings(config.data)) as reader:
            log_mel = LogMel.from_settings(config)
            seen = prepare.read_video(reader, video, video, config.data.image_size, log_mel)
        regions = rois.of_video(config, folders['rois'], video)
    except MediaError as error:
        raise StageError(f'{video} cannot be used: {error.reason}') from error
    known = _universal(config, folders['pretrain'], seen)
    output = _answer(config, folders, seen, regions, known, question)
    page = page_folder / f'{_name(video, question)}.png'
    evidence = example_page.Evidence(
        frames=seen['frames'],
        boxes=regions['boxes'],
        classes=regions['classes'],
        class_names=rois.class_names(folders['rois']),
        sources=known['sources'][0],
        rhythm=known['rhythm'][0],
        labels_from='predicted by the universal encoder',
        segment_seconds=config.data.segment_seconds,
    )
    probabilities, importance = output
    example_page.draw(evidence, question, probabilities, importance, None, page)
    return _text(question, probabilities, importance, page)


def _universal(config: ConfigDict, folder: Path, seen: Mapping) -> dict[str, np.ndarray]:
    """What the frozen universal encoder makes of the video: its features, with a batch axis."""
    structure, arrays = pretrain.load(config, folder)

    @jax.jit
    def encode(arrays, frames, log_mel):
        return structure.merge(arrays)(frames, log_mel)

    output = encode(arrays, seen['frames'][None], seen['log_mel'][None].astype(np.float32))
    return {
        field.name: np.asarray(getattr(output, field.name)) for field in dataclasses.fields(output)
    }


def _answer(
    config: ConfigDict,
    folders: Mapping[str, Path],
    seen: Mapping,
    regions: Mapping[str, np.ndarray],
    known: Mapping[str, np.ndarray],
    question: str,
) -> tuple[np.ndarray, dict[str, float]]:
    """Probabilities (42,) and the importance of each stream."""
    model = predict.load_best(config, folders)
    words, word_mask = QuestionTokenizer(config.model.text).encode([question])
    one_video = {name: seen[name] for name in ('frames', 'log_mel')} | dict(regions)
    batch = {name: array[None] for name, array in one_video.items()} | dict(known)
    batch['segment_mask'] = (seen['frame_mask'] & seen['audio_mask'])[None]
    batch |= {'words': words[None], 'word_mask': word_mask[None]}
    graphdef, state = nnx.split(model)

    @jax.jit
    def answer(state, batch):
        model = nnx.merge(graphdef, state)
        return model(answering.inputs_of(model, batch, is_open=config.train.epochs > 0))

    output = answer(state, batch)
    probabilities = np.asarray(jax.nn.softmax(output.logits[0, 0]))
    return probabilities, dict(zip(model.streams, np.asarray(output.importance[0, 0]).tolist()))


def _name(video: Path, question: str) -> str:
    """A file name that tells the video, and differs between questions."""
    stem = re.sub(r'[^A-Za-z0-9_-]+', '-', video.stem)[:80]
    return f'{stem}-{hashlib.sha256(question.encode()).hexdigest()[:8]}'


def _text(
    question: str, probabilities: np.ndarray, importance: Mapping[str, float], page: Path
) -> str:
    best = np.argsort(probabilities)[::-1][:5]
    lines = [f'\n{question}', f'answer: {vocabulary.ANSWERS[best[0]]}', '']
    lines += [f'  {probabilities[index]:6.1%}  {vocabulary.ANSWERS[index]}' for index in best]
    lines += ['', 'importance of each stream:']
    lines += [f'  {weight:6.1%}  {name}' for name, weight in importance.items()]
    return '\n'.join([*lines, '', f'page: {page}'])
