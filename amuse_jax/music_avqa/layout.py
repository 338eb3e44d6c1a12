"""Where a data set's files lie: videos in one folder, annotation files by scheme.

A data set is a folder ROOT with `ROOT/videos/<video_id>.mp4` and annotation files. Which ones is
told by `config.data.annotations`:

  plain        avqa-{train,val,test}.json, as rendered data sets have them
  v1           version 1 as corrected by its authors in June 2022 (`json_update`)
  v1-json      version 1 as first published; some questions have two answers
  v1-by-video  the rows of v1, split so that no video is on two sides (splits.py)
  v2-balance   version 2, the balanced set; without a file for validation (splits.py)
  v2-bias      version 2, the biased set; the same

A file is accepted where its repository has it, so that ROOT can be a clone, and under every shorter
end of that path: data/json_update/avqa-val.json, json_update/avqa-val.json, avqa-val.json. The
repositories are GeWu-Lab/MUSIC-AVQA and DragonLiu1995/MUSIC-AVQA-v2.0; where AIM-SKKU/QA-TIGER cut
version 2's train rows into train and validation, its files are accepted too.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from ml_collections import ConfigDict

from amuse_jax.errors import StageError
from amuse_jax.music_avqa import rows

_UPDATED = {split: (f'data/json_update/avqa-{split}.json',) for split in rows.SPLITS}

# Scheme and split -> the accepted files, the best first.
FILES: dict[str, dict[str, tuple[str, ...]]] = {
    'plain': {split: (f'avqa-{split}.json',) for split in rows.SPLITS},
    'v1': _UPDATED,
    'v1-json': {split: (f'data/json/avqa-{split}.json',) for split in rows.SPLITS},
    'v1-by-video': _UPDATED,
    'v2-balance': {
        'train': (
            'data/balance_full_set/train_balance.json',
            'data/annots/music_avqa_v2/balance_train.json',
        ),
        'val': ('data/annots/music_avqa_v2/balance_valid.json',),
        'test': ('data/balance_full_set/test_balance.json',),
    },
    'v2-bias': {
        'train': (
            'data/bias_set/train_bias.json',
            'data/annots/music_avqa_v2/bias_train.json',
        ),
        'val': ('data/annots/music_avqa_v2/bias_valid.json',),
        'test': ('data/bias_set/test_bias.json',),
    },
}
SCHEMES = tuple(FILES)
WITHOUT_VALIDATION = ('v2-balance', 'v2-bias')
ADDITIONAL_VIDEOS = 'data/MUSIC-AVQA-v2.0_additional_videos.csv'
# Of MUSIC-AVQA-R: what its two test files are called in a folder.
REPHRASED_FILES = ('avqa-test-head.json', 'avqa-test-tail.json')


def data_root(config: ConfigDict, inputs: Mapping[str, Path]) -> Path:
    """The folder of the data set: `config.data.root`, or what the render stage wrote.

    Raises:
      StageError: neither is there.
    """
    root = Path(config.data.root) if config.data.root else inputs.get('render')
    if root is None:
        raise StageError(
            'there is no data set: set --config.data.root to a folder with videos/ and annotation '
            'files, or --config.synthetic.videos to render one'
        )
    if not root.is_dir():
        raise StageError(
            f'the data set folder {root} does not exist; expected a folder with videos/ and '
            'annotation files (data.root in the config)'
        )
    return root


def video_path(root: Path, video_id: str) -> Path:
    """Where a video lies: always inside `root`, whatever an annotation file says.

    Raises:
      ValueError: `video_id` is not a plain file name.
    """
    return root / 'videos' / f'{rows.plain_name(video_id, "video_id")}.mp4'


def locate(root: Path, scheme: str) -> dict[str, tuple[str, Path | None]]:
    """For each split its file's path in the repository and where it lies, None where it does not.

    Where none of the accepted files is there, the path is that of the best.
    """
    return {split: _first(root, names) for split, names in FILES[scheme].items()}


def is_optional(scheme: str, split: str) -> bool:
    """Whether the split is cut from 'train' where it has no file."""
    return split == 'val' and scheme in WITHOUT_VALIDATION


def find(root: Path, scheme: str, splits: Sequence[str] = rows.SPLITS) -> dict[str, Path]:
    """The annotation file of each split; 'val' is left out where it is to be cut from 'train'.

    Raises:
      StageError: a file that is needed is in none of its places.
    """
    found = {}
    for split, (name, path) in locate(root, scheme).items():
        if split not in splits:
            continue
        if path is not None:
            found[split] = path
        elif not is_optional(scheme, split):
            places = ' or '.join(ends_of(name))
            raise StageError(
                f'the annotation file {PurePosixPath(name).name} does not exist in {root}; '
                f'expected it there as {places} (data.annotations is {scheme})'
            )
    return found


def find_rephrased(root: Path, name: str) -> tuple[Path, ...]:
    """The files of MUSIC-AVQA-R that `config.data.rephrased` names; () for ''.

    Args:
      root: the data set.
      name: a JSON file or a folder with REPHRASED_FILES, from `root` or absolute.

    Raises:
      StageError: neither is there.
    """
    if not name:
        return ()
    path = root / name
    files = tuple(path / file for file in REPHRASED_FILES) if path.is_dir() else (path,)
    for file in files:
        if not file.is_file():
            raise StageError(
                f'data.rephrased: there is no file {file}; expected a test file of MUSIC-AVQA-R, '
                f'or a folder with {" and ".join(REPHRASED_FILES)}'
            )
    return files


def find_additional(root: Path) -> Path | None:
    """Version 2's table of additional videos, where it is there."""
    return _first(root, (ADDITIONAL_VIDEOS,))[1]


def ends_of(name: str) -> list[str]:
    """'a/b/c.json' -> ['a/b/c.json', 'b/c.json', 'c.json']."""
    parts = PurePosixPath(name).parts
    return ['/'.join(parts[start:]) for start in range(len(parts))]


def _first(root: Path, names: tuple[str, ...]) -> tuple[str, Path | None]:
    for name in names:
        for end in ends_of(name):
            if (root / end).is_file():
                return name, root / end
    return names[0], None
