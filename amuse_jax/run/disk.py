"""How much disk a run takes, said and compared with what is free before its first stage starts.

What grows with the videos (records, regions, stored features and tokens) is exact before it is
compressed, which records and checkpoints are; rendered videos are reckoned from a few. Of the
models only the towers' matrices are counted, as if all of them trained: in Amuse they usually do
not, and what is left out weighs less.
"""

import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from amuse_jax import music_avqa
from amuse_jax.errors import StageError
from amuse_jax.media.log_mel import LogMel
from amuse_jax.models import summary
from amuse_jax.music_avqa import vocabulary
from amuse_jax.run.stage import Stage


def left(config: ConfigDict, workdir: Path, todo: Collection[Stage]) -> dict[Path, int]:
    """Bytes that the stages to do still write at most, by their folders.

    Raises:
      StageError: an annotation file cannot be read.
    """
    found = {}
    for bytes_of, count in ((BYTES, _count_videos), (TEST_BYTES, _count_test_videos)):
        stages = [stage for stage in todo if stage.name in bytes_of]
        videos = count(config) if stages else 0
        for stage in stages:
            folder = stage.path(workdir)
            size = bytes_of[stage.name](config, videos)
            found[folder] = max(size - _used(folder), 0)
    return found


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
    parts = ', '.join(
        f'{folder.relative_to(workdir)} {size / 1e9:.2f}' for folder, size in needed.items()
    )
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
    """The stage prepare: frames as uint8, log-mels as float16; the questions weigh little."""
    segments, frames, mels = LogMel.from_settings(config).shape
    return videos * segments * (3 * config.data.image_size**2 + 2 * frames * mels)


def of_regions(config: ConfigDict, videos: int) -> int:
    """The stage rois: boxes, classes, scores and features, in shards and then as one array each."""
    region = 2 * (4 + 1 + 1 + config.rois.feature_size)  # float16 and int16
    return 2 * videos * config.data.segments * config.rois.regions * region


def of_pretraining(config: ConfigDict, videos: int) -> int:
    """The stage pretrain: checkpoints of two pairs of towers, and the features of all videos, twice
    where the predictors learn first."""
    times = 2 if config.pretrain.predictor_epochs else 1
    features = times * _features(config, videos)
    return features + _checkpoints(config, 2 * _tower_parameters(config))


def of_training(config: ConfigDict, videos: int) -> int:
    """The stage train: checkpoints with the best, and the frozen towers' tokens of all videos."""
    text = config.model.text
    parameters = (summary.BERT_WORDS + 12 * text.width * text.depth) * text.width
    if config.without != 'encoder':
        parameters += _tower_parameters(config)
    return _checkpoints(config, parameters) + 2 * 4 * parameters + _tokens(config, videos)


def of_test_features(config: ConfigDict, videos: int) -> int:
    """The stage test_features: what pretrain and train store of their own videos, once."""
    return _features(config, videos) + _tokens(config, videos)


# By stage, from the config and the number of the data set's videos.
BYTES = {
    'render': of_rendering,
    'prepare': of_records,
    'rois': of_regions,
    'pretrain': of_pretraining,
    'train': of_training,
}
# The same from the number of test videos of `config.evaluate.data`.
TEST_BYTES = {
    'test_prepare': of_records,
    'test_rois': of_regions,
    'test_features': of_test_features,
}


def _features(config: ConfigDict, videos: int) -> int:
    """The universal encoder's features, float16, and a mask."""
    streams = 2 * sum(_widths(config)) + 1 + len(vocabulary.INSTRUMENTS)
    return videos * config.data.segments * (2 * streams + 1)


def _tokens(config: ConfigDict, videos: int) -> int:
    """The frozen towers' tokens; 0 where there are no frozen towers."""
    if config.without == 'encoder' or _trains_towers(config.train.trainable):
        return 0
    numbers = sum(_meeting_sizes(config)) if config.train.epochs else 0
    numbers += sum(_widths(config)) if config.train.head_epochs else 0
    itemsize = np.dtype(config.train.encoded_dtype).itemsize
    return videos * config.data.segments * numbers * itemsize


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
    return _count_pairs(config.data) if config.data.root else config.synthetic.videos


def _count_test_videos(config: ConfigDict) -> int:
    return _count_pairs(config.evaluate.data, ('test',))


def _count_pairs(data: ConfigDict, splits: Sequence[str] = music_avqa.SPLITS) -> int:
    """Pairs of a picture and a sound: with two sounds, a video is two records."""
    annotations = music_avqa.read(Path(data.root), data.annotations, data.rephrased, splits)
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
