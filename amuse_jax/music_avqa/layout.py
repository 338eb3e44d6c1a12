"""The folder layout of a data set: where its annotation files are (video_files.py: its videos).

A data set is a folder ROOT with annotation files. The scheme, `config.data.annotations`, says which
annotation files to read:

  plain        avqa-{train,val,test}.json, the layout of rendered data sets
  v1           version 1 as corrected by its authors in June 2022 (`json_update`)
  v1-json      version 1 as first published; some questions have two answers
  v1-by-video  the rows of v1, split so that no performance is in two splits (splits.py)
  v2-balance   version 2, the balanced set; it has no validation file (splits.py)
  v2-bias      version 2, the biased set; it has no validation file either

A file may be at its path in the authors' repository, so that ROOT can be a clone, or at any suffix
of that path: data/json_update/avqa-val.json, json_update/avqa-val.json or avqa-val.json. The
repositories are GeWu-Lab/MUSIC-AVQA and DragonLiu1995/MUSIC-AVQA-v2.0. AIM-SKKU/QA-TIGER has split
version 2's train rows into train and validation; these files are accepted too, and so are its
copies of version 2 (`music_avqa_v2/train_balance.json` and so on).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from ml_collections import ConfigDict

from amuse_jax.errors import StageError
from amuse_jax.music_avqa import rows
from amuse_jax.system import paths

_UPDATED = {split: (f'data/json_update/avqa-{split}.json',) for split in rows.SPLITS}

# Scheme and split -> paths of the accepted files, the preferred one first.
FILES: dict[str, dict[str, tuple[str, ...]]] = {
    'plain': {split: (f'avqa-{split}.json',) for split in rows.SPLITS},
    'v1': _UPDATED,
    'v1-json': {split: (f'data/json/avqa-{split}.json',) for split in rows.SPLITS},
    'v1-by-video': _UPDATED,
    'v2-balance': {
        'train': (
            'data/balance_full_set/train_balance.json',
            'data/annots/music_avqa_v2/train_balance.json',
            'data/annots/music_avqa_v2/balance_train.json',
        ),
        'val': ('data/annots/music_avqa_v2/balance_valid.json',),
        'test': (
            'data/balance_full_set/test_balance.json',
            'data/annots/music_avqa_v2/test_balance.json',
        ),
    },
    'v2-bias': {
        'train': (
            'data/bias_set/train_bias.json',
            'data/annots/music_avqa_v2/train_bias.json',
            'data/annots/music_avqa_v2/bias_train.json',
        ),
        'val': ('data/annots/music_avqa_v2/bias_valid.json',),
        'test': (
            'data/bias_set/test_bias.json',
            'data/annots/music_avqa_v2/test_bias.json',
        ),
    },
}
SCHEMES = tuple(FILES)
WITHOUT_VALIDATION = ('v2-balance', 'v2-bias')
ADDITIONAL_VIDEOS = 'data/MUSIC-AVQA-v2.0_additional_videos.csv'
# The names of MUSIC-AVQA-R's two test files.
REPHRASED_FILES = ('avqa-test-head.json', 'avqa-test-tail.json')


def data_root(config: ConfigDict, inputs: Mapping[str, Path]) -> Path:
    """Return the folder of the data set: `config.data.root`, or the folder of the render stage.

    Raises:
      StageError: neither is set, or the folder does not exist.
    """
    given = config.data.root
    root = paths.from_user(given, 'config.data.root') if given else inputs.get('render')
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


def locate(root: Path, scheme: str) -> dict[str, tuple[str, Path | None]]:
    """Look for the annotation file of each split.

    Returns:
      By split: the file's path in the repository, and its path in `root`. If no accepted file
      exists, they are the repository path of the preferred file, and None.
    """
    return {split: _first_existing(root, names) for split, names in FILES[scheme].items()}


def is_optional(scheme: str, split: str) -> bool:
    """Return whether the split needs no file, because it can be taken from the train questions."""
    return split == 'val' and scheme in WITHOUT_VALIDATION


def find(root: Path, scheme: str, splits: Sequence[str] = rows.SPLITS) -> dict[str, Path]:
    """Return the path of each split's annotation file; an optional file may be absent.

    Raises:
      StageError: a file that is not optional is missing.
    """
    found = {}
    for split, (name, path) in locate(root, scheme).items():
        if split not in splits:
            continue
        if path is not None:
            found[split] = path
        elif not is_optional(scheme, split):
            places = ' or '.join(path_suffixes(name))
            raise StageError(
                f'the annotation file {PurePosixPath(name).name} does not exist in {root}; '
                f'expected it there as {places} (data.annotations is {scheme})'
            )
    return found


def find_rephrased(root: Path, name: str) -> tuple[Path, ...]:
    """Return the paths of MUSIC-AVQA-R's files.

    Args:
      root: folder of the data set.
      name: `config.data.rephrased`: a JSON file or a folder with REPHRASED_FILES, as an absolute
        path or a path relative to `root`; '' for no files.

    Raises:
      StageError: a file is missing.
    """
    if not name:
        return ()
    path = root / paths.from_user(name, 'config.data.rephrased')
    files = tuple(path / file for file in REPHRASED_FILES) if path.is_dir() else (path,)
    for file in files:
        if not file.is_file():
            raise StageError(
                f'data.rephrased: there is no file {file}; expected a test file of MUSIC-AVQA-R, '
                f'or a folder with {" and ".join(REPHRASED_FILES)}'
            )
    return files


def find_additional(root: Path) -> Path | None:
    """Return the path of version 2's table of additional videos, or None if it is missing."""
    return _first_existing(root, (ADDITIONAL_VIDEOS,))[1]


def path_suffixes(name: str) -> list[str]:
    """Return a path and all its shorter ends.

    Example: 'a/b/c.json' -> ['a/b/c.json', 'b/c.json', 'c.json'].
    """
    parts = PurePosixPath(name).parts
    return ['/'.join(parts[start:]) for start in range(len(parts))]


def _first_existing(root: Path, names: tuple[str, ...]) -> tuple[str, Path | None]:
    for name in names:
        for suffix in path_suffixes(name):
            if (root / suffix).is_file():
                return name, root / suffix
    return names[0], None
