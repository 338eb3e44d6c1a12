"""MUSIC-AVQA as a TFDS data set, built from the records that the stage `prepare` wrote.

In the file format array_record, TFDS builds and reads it without TensorFlow.
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

SHARD_EXAMPLES = 64  # examples per shard; TFDS keeps a shard in memory, about 120 MB
TYPES = tuple('/'.join(kind) for kind in vocabulary.TYPES)

Example = tuple[str, dict]


@dataclasses.dataclass(eq=False)
class MusicAvqaConfig(tfds.core.BuilderConfig):
    """A version of the data set, and the shapes of its arrays.

    Attributes:
      annotations: value of `data.annotations` with which the records were prepared.
      frames: shape (T, S, S, 3) of the frames; None for an axis of any size.
      log_mel: shape (T, F, M) of the log-mels; None for an axis of any size.
    """

    annotations: str = 'v1'
    frames: tuple[int | None, ...] = (10, 192, 192, 3)
    log_mel: tuple[int | None, ...] = (10, 601, 64)


class Builder(tfds.core.ShardBasedBuilder):
    """Builds each split from the videos that have questions in it, in the order of the records."""

    VERSION = tfds.core.Version('1.0.0')
    RELEASE_NOTES = {'1.0.0': 'First release.'}
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
    The manual directory is the folder of amuse_jax's stage `prepare`, WORKDIR/prepare. Prepare it
    with the file in configs/ that has the name of the TFDS config, here v1:

      python -m amuse_jax.main --config=configs/v1.py --config.data.root=DIR --workdir=WORKDIR \\
        --stages=prepare

    DIR holds the videos and annotation files of MUSIC-AVQA, whose licence is non-commercial. The
    same command without --config.data.root lists them. The config `synthetic` needs no files:

      python -m amuse_jax.main --config=configs/synthetic.py --workdir=WORKDIR \\
        --stages=render,prepare
    """
    BUILDER_CONFIGS = [
        MusicAvqaConfig(name='v1', description='MUSIC-AVQA: 9,288 videos.'),
        MusicAvqaConfig(
            name='v2',
            description='MUSIC-AVQA v2.0, balanced: 10,518 videos; some have another\'s sound.',
            annotations='v2-balance',
        ),
        MusicAvqaConfig(
            name='synthetic',
            description='Performances rendered by amuse_jax, with questions and exact answers.',
            annotations='plain',
            frames=(None, None, None, 3),
            log_mel=(None, None, None),
        ),
    ]  # fmt: skip

    def _info(self) -> tfds.core.DatasetInfo:
        config, segments = self.builder_config, self.builder_config.frames[0]
        text, tensor = tfds.features.Text, tfds.features.Tensor
        question = {
            'question_id': text(doc='The id in the annotation file, or <file>:<row>.'),
            'text': text(doc='The question with filled placeholders.'),
            'template': text(doc='The question with its placeholders, as annotated.'),
            'type': tfds.features.ClassLabel(
                names=TYPES, doc='Modality and type; there are nine combinations.'
            ),
            'answer': tfds.features.ClassLabel(
                names=vocabulary.ANSWERS, doc='One of the 42 answers.'
            ),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    'video_id': text(doc='The video whose picture is shown.'),
                    'sound_id': text(doc='The video whose sound is played; usually the same.'),
                    'seconds': tfds.features.Scalar(
                        np.float32, doc='Length of the sound in seconds.'
                    ),
                    'frames': tensor(
                        shape=config.frames,
                        dtype=np.uint8,
                        encoding='bytes',
                        doc='RGB frame at the middle of each of T segments, (T, S, S, 3).',
                    ),
                    'frame_mask': tensor(
                        shape=(segments,), dtype=np.bool_, doc='Whether the segment has a frame.'
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
                        question, doc='All questions of the split about the video, in file order.'
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
        """Raise StageError unless the records fit the config.

        Raises:
          StageError: the stage is not finished, or the records are of another data set or have
            other shapes.
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
                f'{expected}; give the config that it was prepared for, or another folder'
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
    """Return one function per shard of a split; it yields the shard's examples."""
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
    """Yield the key and the example of each chosen record, with the chosen questions about it."""
    for index, rows in chosen:
        example = reader[index]
        example['questions'] = [
            {name: row[name] for name in ('question_id', 'text', 'template', 'answer')}
            | {'type': f'{row["modality"]}/{row["kind"]}'}
            for row in rows
        ]
        yield f'{example["video_id"]} {example["sound_id"]}', example
