"""MUSIC-AVQA as a TFDS data set, made of the records that the stage `prepare` left.

TFDS needs no TensorFlow for it in the format array_record.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from amuse_jax import music_avqa
from amuse_jax.data.prepared import Prepared
from amuse_jax.data.records import RecordReader
from amuse_jax.errors import StageError
from amuse_jax.music_avqa import vocabulary
from amuse_jax.system.manifest import read_manifest

SHARD_EXAMPLES = 64  # TFDS holds a shard in memory: 120 MB
TYPES = tuple('/'.join(kind) for kind in vocabulary.TYPES)

Example = tuple[str, dict]


@dataclasses.dataclass(eq=False)
class MusicAvqaConfig(tfds.core.BuilderConfig):
    """Which data set, and the shapes in which it is prepared.

    Attributes:
      annotations: the `data.annotations` with which it was prepared.
      frames: (T, S, S, 3); None: whatever `prepare` was told.
      log_mel: (T, F, M), as `frames`.
    """

    annotations: str = 'v1'
    frames: tuple[int | None, ...] = (10, 192, 192, 3)
    log_mel: tuple[int | None, ...] = (10, 601, 64)


class Builder(tfds.core.ShardBasedBuilder):
    """Writes every split's videos with their questions of that split, in the records' order."""

    VERSION = tfds.core.Version('1.0.0')
    RELEASE_NOTES = {'1.0.0': 'First release.'}
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
    The manual directory is what amuse_jax's stage `prepare` left, WORKDIR/prepare, with the file in
    configs/ that is called as the config that is built, here v1:

      python -m amuse_jax.main --config=configs/v1.py --config.data.root=DIR --workdir=WORKDIR \\
        --stages=prepare

    DIR holds MUSIC-AVQA's videos and annotation files, whose licence is non-commercial; the same
    command without --config.data.root says which they are. The config `synthetic` is rendered:

      python -m amuse_jax.main --config=configs/synthetic.py --workdir=WORKDIR \\
        --stages=render,prepare
    """
    BUILDER_CONFIGS = [
        MusicAvqaConfig(name='v1', description='MUSIC-AVQA: 9,288 videos.'),
        MusicAvqaConfig(
            name='v2',
            description='MUSIC-AVQA v2.0, balanced: 10,518 videos, some with another one\'s sound.',
            annotations='v2-balance',
        ),
        MusicAvqaConfig(
            name='synthetic',
            description='Performances that amuse_jax renders, with questions it can answer.',
            annotations='plain',
            frames=(None, None, None, 3),
            log_mel=(None, None, None),
        ),
    ]  # fmt: skip

    def _info(self) -> tfds.core.DatasetInfo:
        config, segments = self.builder_config, self.builder_config.frames[0]
        text, tensor = tfds.features.Text, tfds.features.Tensor
        question = {
            'question_id': text(doc="The annotation file's own, or <file>:<row>."),
            'text': text(doc='The question with its placeholders filled.'),
            'template': text(doc='The question with its placeholders, as annotated.'),
            'type': tfds.features.ClassLabel(names=TYPES, doc='Modality and type: the nine rows.'),
            'answer': tfds.features.ClassLabel(names=vocabulary.ANSWERS, doc='One of the 42.'),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    'video_id': text(doc='Whose picture is seen.'),
                    'sound_id': text(doc='Whose sound is heard, mostly the same.'),
                    'seconds': tfds.features.Scalar(np.float32, doc='How long the sound lasts.'),
                    'frames': tensor(
                        shape=config.frames,
                        dtype=np.uint8,
                        encoding='bytes',
                        doc='RGB at the middle of each of T segments, (T, S, S, 3).',
                    ),
                    'frame_mask': tensor(
                        shape=(segments,), dtype=np.bool_, doc='Whether there is such a frame.'
                    ),
                    'log_mel': tensor(
                        shape=config.log_mel,
                        dtype=np.float16,
                        encoding='bytes',
                        doc='Log-mel of each segment in dB, (T, frames, bands).',
                    ),
                    'audio_mask': tensor(
                        shape=(segments,), dtype=np.bool_, doc='Whether the segment has sound.'
                    ),
                    'questions': tfds.features.Sequence(
                        question, doc='All that the split asks about the video, in file order.'
                    ),
                }
            ),
            homepage='https://gewu-lab.github.io/MUSIC-AVQA/',
        )

    def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
    ) -> Mapping[str, Sequence[Callable[[], Iterator[Example]]]]:
        prepared = Prepared(dl_manager.manual_dir)
        reader = prepared.reader()
        self._check(reader, prepared.folder)
        return {split: _shards(reader, prepared.rows, split) for split in music_avqa.SPLITS}

    def _check(self, reader: RecordReader, prepared: Path) -> None:
        """Refuses records of another data set, or of other shapes, than the config's.

        Raises:
          StageError: says which.
        """
        record, name = reader[0], self.builder_config.name
        manifest = read_manifest(prepared)
        if manifest is None:
            raise StageError(
                f'the stage prepare is not finished in {prepared}; start it again to go on'
            )
        found, expected = (
            manifest['settings'].get('data.annotations'),
            self.builder_config.annotations,
        )
        if found != expected:
            raise StageError(
                f'{prepared} was prepared with data.annotations={found}, music_avqa/{name} has '
                f'{expected}; give --config and the folder that was prepared for it'
            )
        for field in ('frames', 'log_mel'):
            shape, expected = record[field].shape, getattr(self.builder_config, field)
            if any(size not in (None, found) for found, size in zip(shape, expected)):
                raise StageError(
                    f'{prepared} has {field} of shape {shape}, music_avqa/{name} has {expected}; '
                    f'prepare the videos with the settings of configs/{name}.py'
                )


def _shards(
    reader: RecordReader, rows: Sequence[Mapping], split: str
) -> list[Callable[[], Iterator[Example]]]:
    """What makes each shard of a split."""
    questions: dict[int, list[Mapping]] = {}
    for row in rows:
        if row['split'] == split:
            questions.setdefault(row['record'], []).append(row)
    chosen = sorted(questions.items())
    return [
        functools.partial(_examples, reader, chosen[start : start + SHARD_EXAMPLES])
        for start in range(0, len(chosen), SHARD_EXAMPLES)
    ]


def _examples(
    reader: RecordReader, chosen: Sequence[tuple[int, Sequence[Mapping]]]
) -> Iterator[Example]:
    """Keys and examples of some records, each with these of its questions."""
    for index, rows in chosen:
        example = reader[index]
        example['questions'] = [
            {name: row[name] for name in ('question_id', 'text', 'template', 'answer')}
            | {'type': f'{row["modality"]}/{row["kind"]}'}
            for row in rows
        ]
        yield f'{example["video_id"]} {example["sound_id"]}', example
