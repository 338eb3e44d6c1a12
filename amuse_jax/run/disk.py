"""The disk space that a run needs, compared with the free space before the first stage starts.

The sizes that grow with the number of videos (records, regions, features, stored tokens) are exact
before compression; records and checkpoints are compressed. The size of rendered videos is estimated
from a few examples. Of the models, only the matrices of the towers are counted, as if all of them
were trained. Usually most of them are frozen, which outweighs the parts that are not counted.
"""

import math
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import jax.numpy as jnp
from absl import logging
from ml_collections import ConfigDict

from amuse_jax import music_avqa
from amuse_jax.errors import StageError
from amuse_jax.features import catalogue
from amuse_jax.media.log_mel import LogMel
from amuse_jax.models import summary
from amuse_jax.music_avqa import vocabulary
from amuse_jax.parsing import parse_trainable
from amuse_jax.run import set_aside
from amuse_jax.run.definition import Stage
from amuse_jax.training.peers import summary as peer_summary


def remaining_bytes(
    config: ConfigDict, workdir: Path, pending: Collection[Stage], begun: Collection[str]
) -> dict[Path, int]:
    """Return how many bytes, at most, the pending stages will still write.

    Args:
      config: the run's config.
      workdir: the run's folder.
      pending: the stages that are not complete.
      begun: names of those that will go on in their folders. What the folder of another stage holds
        is set aside, unless the stage is not kept.

    Returns:
      The bytes by folder.

    Raises:
      StageError: an annotation file cannot be read.
    """
    remaining = {}
    for stage_bytes, count in (
        (STAGE_BYTES, count_videos),
        (TEST_STAGE_BYTES, _count_test_videos),
    ):
        stages = [stage for stage in pending if stage.name in stage_bytes]
        videos = count(config) if stages else 0
        for stage in stages:
            folder = stage.path(workdir)
            size = stage_bytes[stage.name](config, videos)
            is_reused = stage.name in begun or not stage.is_kept
            present = set_aside.size(folder) if is_reused else 0
            remaining[folder] = max(size - present, 0)
    return remaining


def check(workdir: Path, needed: Mapping[Path, int]) -> None:
    """Log the needed space by folder, and refuse a run for which the disk is too small.

    Args:
      workdir: the run's folder.
      needed: bytes by folder, from `remaining_bytes`.

    Raises:
      StageError: less space is free than needed.
    """
    total = sum(needed.values())
    if not total:
        return
    existing = next(path for path in (workdir, *workdir.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    parts = ', '.join(
        f'{folder.relative_to(workdir)} {size / 1e9:.2f}' for folder, size in needed.items()
    )
    logging.info('disk: at most %.2f GB (%s); free: %.2f GB', total / 1e9, parts, free / 1e9)
    if total > free:
        raise StageError(
            f'the pending stages need up to {total / 1e9:.1f} GB in {workdir} ({parts}), where '
            f'{free / 1e9:.1f} GB are free; make room (--stages=status lists what was set aside), '
            'use another --workdir, name fewer --stages, or halve the stored tokens of train by '
            '--config.model.dtype=bfloat16'
        )


def render_bytes(config: ConfigDict, videos: int) -> int:
    """Return the size of rendered videos.

    Measured: 2.2 MB of stems and sound per video, and 11 to 14 bytes per pixel of a frame.
    """
    return videos * (2_500_000 + 15 * config.synthetic.width * config.synthetic.height)


def record_bytes(config: ConfigDict, videos: int) -> int:
    """Return the size of records: frames as uint8 and log-mels as float16.

    The questions are not counted because they are small.
    """
    segments, frames, mels = LogMel.from_settings(config).shape
    return videos * segments * (3 * config.data.image_size**2 + 2 * frames * mels)


def region_bytes(config: ConfigDict, videos: int) -> int:
    """Return the size of regions: boxes, classes, scores and features.

    They are written twice, first in shards and then as one array each.
    """
    region = 2 * (4 + 1 + 1 + config.rois.feature_size)  # float16 and int16
    return 2 * videos * config.data.segments * config.rois.regions * region


def array_bytes(config: ConfigDict, videos: int) -> int:
    """Return the size of the stage `features`: its float16 arrays, and the largest shards beside.

    The shards of an extractor are deleted when its arrays are complete.
    """
    extractors = catalogue.chosen(config.features.arrays)
    sizes = [0]
    for extractor in extractors:
        is_question = extractor.reads == 'question'
        rows = _count_texts(config, videos) if is_question else videos
        sizes.append(rows * sum(2 * math.prod(shape) for shape in extractor.shapes.values()))
    return sum(sizes) + max(sizes) + (catalogue.SECONDS * videos if extractors else 0)


def pretrain_bytes(config: ConfigDict, videos: int) -> int:
    """Return the size of pretraining: checkpoints of two pairs of towers, and all videos' features.

    The features are stored twice if the predictors are trained alone first. The best parameters are
    kept if there are several epochs.
    """
    times = 2 if config.pretrain.predictor_epochs else 1
    features, parameters = times * _feature_bytes(config, videos), 2 * _tower_parameters(config)
    best = 2 * 4 * parameters if config.pretrain.epochs > 1 else 0
    return features + _checkpoint_bytes(config, parameters) + best


def train_bytes(config: ConfigDict, videos: int) -> int:
    """Return the size of training: checkpoints, the best one, and stored tokens of all videos."""
    if config.peer.name:  # it stores no tokens
        parameters = peer_summary.count(config)
        return _checkpoint_bytes(config, parameters) + 2 * 4 * parameters
    text = config.model.text
    parameters = (summary.BERT_WORDS + 12 * text.width * text.depth) * text.width
    if config.without != 'encoder':
        parameters += _tower_parameters(config)
    return _checkpoint_bytes(config, parameters) + 2 * 4 * parameters + _token_bytes(config, videos)


def test_feature_bytes(config: ConfigDict, videos: int) -> int:
    """Return the size of the features and tokens of test videos, each stored once."""
    return _feature_bytes(config, videos) + _token_bytes(config, videos)


# By stage: a function of the config and the number of videos in the data set.
STAGE_BYTES = {
    'render': render_bytes,
    'prepare': record_bytes,
    'rois': region_bytes,
    'features': array_bytes,
    'pretrain': pretrain_bytes,
    'train': train_bytes,
}
# The same as functions of the number of test videos in `config.evaluate.data`.
TEST_STAGE_BYTES = {
    'test_prepare': record_bytes,
    'test_rois': region_bytes,
    'test_features': test_feature_bytes,
}


def _feature_bytes(config: ConfigDict, videos: int) -> int:
    """Return the size of the universal encoder's float16 features and of their mask."""
    streams = 2 * sum(_output_widths(config)) + 1 + len(vocabulary.INSTRUMENTS)
    return videos * config.data.segments * (2 * streams + 1)


def _token_bytes(config: ConfigDict, videos: int) -> int:
    """Return the size of the frozen towers' stored tokens; 0 if no tower is frozen."""
    trains_towers = parse_trainable(config.train.trainable).search('encoder.visual.')
    if config.without == 'encoder' or trains_towers:
        return 0
    numbers = sum(_stage3_sizes(config)) if config.train.epochs else 0
    numbers += sum(_output_widths(config)) if config.train.head_epochs else 0
    return videos * config.data.segments * numbers * jnp.dtype(config.model.dtype).itemsize


def _output_widths(config: ConfigDict) -> tuple[int, int]:
    """Return the numbers of output channels of the visual and the audio tower."""
    return 8 * config.model.visual.width, 8 * config.model.audio.width


def _stage3_sizes(config: ConfigDict) -> tuple[int, int]:
    """Return how many numbers a segment's tokens hold in stage 3 of the visual and audio tower.

    The adapters connect the towers there.
    """
    return tuple(
        (tower.image_size // tower.patch // 4) ** 2 * 4 * tower.width
        for tower in (config.model.visual, config.model.audio)
    )


def _tower_parameters(config: ConfigDict) -> int:
    """Count the visual and audio tower's matrices: 12 d^2 per block, 8 d^2 per patch merging."""
    return sum(
        (12 * depth + 8 * (stage < 3)) * (tower.width << stage) ** 2
        for tower in (config.model.visual, config.model.audio)
        for stage, depth in enumerate(tower.depths)
    )


def _checkpoint_bytes(config: ConfigDict, parameters: int) -> int:
    """Return the size of checkpoints: float32 parameters and Adam's two moments.

    A new checkpoint is written before the oldest one is deleted.
    """
    return (config.loop.keep + 1) * 3 * 4 * parameters


def count_videos(config: ConfigDict) -> int:
    """Return the number of records of the run's own data set."""
    return _count_pairs(config.data) if config.data.root else config.synthetic.videos


def _count_texts(config: ConfigDict, videos: int) -> int:
    """Return the number of different questions; at most that number for rendered videos."""
    if not config.data.root:
        return videos * config.synthetic.questions_per_video
    return len({question.text for question in _read_questions(config.data)})


def _count_test_videos(config: ConfigDict) -> int:
    return _count_pairs(config.evaluate.data, ('test',))


def _count_pairs(data: ConfigDict, splits: Sequence[str] = music_avqa.SPLITS) -> int:
    """Count the pairs of a video and a sound; a video with two sounds becomes two records."""
    questions = _read_questions(data, splits)
    return len({(question.video_id, question.sound_id) for question in questions})


def _read_questions(
    data: ConfigDict, splits: Sequence[str] = music_avqa.SPLITS
) -> list[music_avqa.Question]:
    annotations = music_avqa.read(Path(data.root), data.annotations, data.rephrased, splits)
    return [question for found in annotations.questions.values() for question in found]
