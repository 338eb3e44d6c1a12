"""How much disk a run takes, said and compared with what is free before its first stage starts.

What grows with the videos (records, regions, stored features and tokens) is exact before it is
compressed, which records and checkpoints are; rendered videos are reckoned from a few. Of the
models only the towers' matrices are counted, as if all of them trained: in Amuse they usually do
not, and what is left out weighs less.
"""

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from amuse_jax.data import audio, music_avqa, prepare, vocabulary
from amuse_jax.models import summary
from amuse_jax.stages import Stage, StageError, is_complete


def left(
    config: ConfigDict, workdir: Path, stages: Mapping[str, Stage], names: Sequence[str] = ()
) -> dict[Path, int]:
    """Bytes that the named stages (none named: all) still write at most, by their folders.

    Raises:
      StageError: an annotation file cannot be read, or a manifest.
    """
    todo = [
        stage
        for stage in stages.values()
        if stage.name in BYTES
        and (not names or stage.name in names)
        and not is_complete(stage, config, workdir, stages)
    ]
    if not todo:
        return {}
    videos = _count_videos(config)
    found = {stage.path(workdir): BYTES[stage.name](config, videos) for stage in todo}
    return {folder: max(size - _used(folder), 0) for folder, size in found.items()}


def check(workdir: Path, needed: Mapping[Path, int]) -> None:
    """Logs what is needed, by folder.

    Args:
      workdir: of the run.
      needed: what `left` found.

    Raises:
      StageError: less is free.
    """
    total = sum(needed.values())
    if not total:
        return
    there = next(path for path in (workdir, *workdir.parents) if path.exists())
    free = shutil.disk_usage(there).free
    parts = ', '.join(f'{folder.name} {size / 1e9:.2f}' for folder, size in needed.items())
    logging.info('disk: at most %.2f GB (%s); free: %.2f GB', total / 1e9, parts, free / 1e9)
    if total > free:
        raise StageError(
            f'the stages to do need up to {total / 1e9:.1f} GB in {workdir} ({parts}), where '
            f'{free / 1e9:.1f} GB are free; make room, use another --workdir, name fewer --stages, '
            'or halve the stored tokens of train by --config.train.encoded_dtype=float16'
        )


def of_rendering(config: ConfigDict, videos: int) -> int:
    """The stage render: found 2.2 MB of stems and sound per video, and 11 to 14 bytes per pixel."""
    return videos * (2_500_000 + 15 * config.synthetic.width * config.synthetic.height)


def of_records(config: ConfigDict, videos: int) -> int:
    """The stage prepare: frames and log-mels."""
    shapes = audio.LogMel.from_settings(config)
    return videos * prepare.video_bytes(config.data.image_size, shapes)


def of_regions(config: ConfigDict, videos: int) -> int:
    """The stage rois: boxes, classes, scores and features, in shards and then as one array each."""
    region = 2 * (4 + 1 + 1 + config.rois.feature_size)  # float16 and int16
    return 2 * videos * config.data.segments * config.rois.regions * region


def of_pretraining(config: ConfigDict, videos: int) -> int:
    """The stage pretrain: checkpoints of two pairs of towers, and the features of all videos, twice
    where the predictors learn first."""
    streams = 2 * sum(_widths(config)) + 1 + len(vocabulary.INSTRUMENTS)
    features = videos * config.data.segments * (2 * streams + 1)  # float16, and a mask
    times = 2 if config.pretrain.predictor_epochs else 1
    return times * features + _checkpoints(config, 2 * _tower_parameters(config))


def of_training(config: ConfigDict, videos: int) -> int:
    """The stage train: checkpoints with the best, and the frozen towers' tokens of all videos."""
    text = config.model.text
    parameters = (summary.BERT_WORDS + 12 * text.width * text.depth) * text.width
    has_encoder = config.without != 'encoder'
    if has_encoder:
        parameters += _tower_parameters(config)
    kept = _checkpoints(config, parameters) + 2 * 4 * parameters
    if not has_encoder or _trains_towers(config.train.trainable):
        return kept
    numbers = sum(_meeting_sizes(config)) if config.train.epochs else 0
    numbers += sum(_widths(config)) if config.train.head_epochs else 0
    itemsize = np.dtype(config.train.encoded_dtype).itemsize
    return kept + videos * config.data.segments * numbers * itemsize


BYTES = {
    'render': of_rendering,
    'prepare': of_records,
    'rois': of_regions,
    'pretrain': of_pretraining,
    'train': of_training,
}


def _widths(config: ConfigDict) -> tuple[int, int]:
    """Channels of what the visual and the audio tower return."""
    return 8 * config.model.visual.width, 8 * config.model.audio.width


def _meeting_sizes(config: ConfigDict) -> tuple[int, int]:
    """Numbers in the tokens of a segment where the towers meet, in stage 3."""
    return tuple(
        (tower.image_size // tower.patch // 4) ** 2 * 4 * tower.width
        for tower in (config.model.visual, config.model.audio)
    )


def _tower_parameters(config: ConfigDict) -> int:
    """Of the visual and the audio tower: each block's 12 d^2, and 8 d^2 where tokens merge."""
    return sum(
        (12 * depth + 8 * (stage < 3)) * (tower.width << stage) ** 2
        for tower in (config.model.visual, config.model.audio)
        for stage, depth in enumerate(tower.depths)
    )


def _trains_towers(trainable: str) -> bool:
    try:
        return re.search(trainable, 'encoder.visual.') is not None
    except re.error:  # the stage says so
        return False


def _checkpoints(config: ConfigDict, parameters: int) -> int:
    """Float32 parameters and Adam's two moments; a new one is there before the oldest goes."""
    return (config.loop.keep + 1) * 3 * 4 * parameters


def _count_videos(config: ConfigDict) -> int:
    """Pairs of a picture and a sound: with two sounds, a video is two records."""
    if not config.data.root:
        return config.synthetic.videos
    root = music_avqa.data_root(config, {})
    annotations = music_avqa.read(root, config.data.annotations, config.data.rephrased)
    return len(
        {
            (question.video_id, question.sound_id)
            for questions in annotations.questions.values()
            for question in questions
        }
    )


def _used(folder: Path) -> int:
    """Bytes on the disk, without the holes of sparse files."""
    return sum(512 * path.stat().st_blocks for path in folder.rglob('*') if path.is_file())
