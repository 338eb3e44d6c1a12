"""One question about any video file, answered by the trained model."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from amuse_jax import stages
from amuse_jax.annotate import rois
from amuse_jax.data import audio, guarded, prepare, vocabulary
from amuse_jax.data.questions import QuestionTokenizer
from amuse_jax.data.video import MediaError
from amuse_jax.evaluation import example_page
from amuse_jax.stages import Stage, StageError
from amuse_jax.training import answering, predict, pretrain

NEEDED = ('rois', 'pretrain', 'train')


def run(
    config: ConfigDict, workdir: Path, plan: Mapping[str, Stage], video: Path, question: str
) -> str:
    """Answers `question` about `video` and draws the page of Fig. 4.

    Args:
      config: the one that the model was trained with.
      workdir: of the run.
      plan: its stages by name.
      video: any file that FFmpeg reads.
      question: in plain English.

    Returns:
      The answer with what it rests on, and where the page is.

    Raises:
      StageError: no trained model, or a video that can't be used.
    """
    for name in NEEDED:
        if not stages.is_complete(plan[name], config, workdir, plan):
            raise StageError(
                f'no finished {name} stage for this config in {workdir}; run the same command '
                'without --stages first'
            )
    folders = {name: plan[name].path(workdir) for name in NEEDED}
    try:
        with guarded.Reader(guarded.Limits.from_settings(config.data)) as reader:
            log_mel = audio.LogMel.from_settings(config)
            seen = prepare.read_video(reader, video, video, config.data.image_size, log_mel)
        regions = rois.of_video(config, folders['rois'], video)
    except MediaError as error:
        raise StageError(f'{video} cannot be used: {error.reason}') from error
    known = _universal(config, folders['pretrain'], seen)
    output = _answer(config, folders, seen, regions, known, question)
    page = workdir / 'ask' / f'{_name(video, question)}.png'
    evidence = example_page.Evidence(
        frames=seen['frames'],
        boxes=regions['boxes'],
        classes=regions['classes'],
        class_names=json.loads((folders['rois'] / 'classes.json').read_text()),
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
