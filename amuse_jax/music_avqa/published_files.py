"""Hashes and counts of the published annotation files.

The counts were taken from the files themselves, and the hashes are git's (`git hash-object FILE`).
Some files could not be obtained, so their hashes or counts are unknown; they are None.
"""

import dataclasses
import hashlib
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class PublishedFile:
    """Hash and counts of one published annotation file; None for what is unknown.

    Attributes:
      blob: git's hash of the content.
      rows: number of rows.
      videos: number of different video_ids.
      types: number of rows of each type, in the order of vocabulary.TYPES.
      is_copy: whether the file may be formatted in another way, and so have another hash.
    """

    blob: str | None = None
    rows: int | None = None
    videos: int | None = None
    types: tuple[int, ...] | None = None
    is_copy: bool = False


# The files by their paths in the authors' repositories, as in layout.FILES.
FILES = {
    'data/json/avqa-train.json': PublishedFile('d1da1c6da7ea5a523b93d0dc73444f3b69967528', 32087),
    'data/json/avqa-val.json': PublishedFile(
        '682bca7ad3a09969995ac9fe5d6378145e92797f',
        4595,
        3815,
        (515, 299, 600, 614, 499, 635, 462, 557, 414),
    ),
    'data/json/avqa-test.json': PublishedFile(
        '835b8b552ce71548a04bfb50806d619f94bd5947',
        9185,
        6399,
        (1022, 601, 1199, 1228, 995, 1274, 927, 1115, 824),
    ),
    'data/json_update/avqa-train.json': PublishedFile(
        'dfb9233f598bb27ce6d2783ca377131a6ae2be2c', 31927
    ),
    'data/json_update/avqa-val.json': PublishedFile(
        'dcda27ddfd5de55e8e5723b5ffe5b40d35efeabc',
        4568,
        3815,
        (511, 295, 600, 613, 495, 633, 461, 549, 411),
    ),
    'data/json_update/avqa-test.json': PublishedFile(
        '84e8b4579b1bd62e5bf0b5e1e6545a3e68b39f88',
        9129,
        6399,
        (1017, 594, 1197, 1225, 988, 1265, 920, 1101, 822),
    ),
    'data/balance_full_set/train_balance.json': PublishedFile(
        '5b5ef1934f4f538a2ea15aa853ba34bfe52ff29a'
    ),
    'data/balance_full_set/test_balance.json': PublishedFile(
        'b78957e2ea85d6e932ef220aacd94d9a4b41a852',
        10819,
        7138,
        (1382, 643, 1505, 1338, 1223, 1740, 920, 1101, 967),
    ),
    'data/bias_set/train_bias.json': PublishedFile('fd92f964a630e4f321a1ab56b3641757791ab6e8'),
    'data/bias_set/test_bias.json': PublishedFile(
        'b53e69bf83d061fa90b3c54e5e4c5d87cc5f32c8',
        9119,
        6456,
        (1022, 607, 1222, 1230, 901, 1292, 920, 1101, 824),
    ),
    'data/annots/music_avqa_v2/balance_train.json': PublishedFile(
        'fce92b7be3c86406acd4782f708cf9069d2dea31'
    ),
    'data/annots/music_avqa_v2/balance_valid.json': PublishedFile(
        '2abbe6bd5fc240a7ddd3e0075fffc68a7dffe848',
        5346,
        4317,
        (686, 314, 737, 664, 594, 861, 460, 549, 481),
    ),
    'data/annots/music_avqa_v2/bias_train.json': PublishedFile(
        '22b37bf43d6deee82e517efc6945e1a3e28fc6f6'
    ),
    'data/annots/music_avqa_v2/bias_valid.json': PublishedFile(
        '312a783af6c9b0dd0eb406ebac09f2046a6b5458',
        4499,
        3757,
        (506, 295, 596, 611, 433, 638, 460, 549, 411),
    ),
}
# Copies of these files in other repositories, and the files that they are copies of.
COPIES = {
    f'data/annots/music_avqa_v2/{split}_{kind}.json': f'data/{folder}/{split}_{kind}.json'
    for kind, folder in (('balance', 'balance_full_set'), ('bias', 'bias_set'))
    for split in ('train', 'test')
}
# MUSIC-AVQA-R's files by their names; people also make a file of their own from both.
REPHRASED = {
    'avqa-test-head.json': PublishedFile('773c361fce18981662694a14c7adf91d0e776a97', is_copy=True),
    'avqa-test-tail.json': PublishedFile('33e7907a7ddf2164743accb6bb89f495b5e343a3', is_copy=True),
}
# Rows of MUSIC-AVQA-R, head and tail together; they rephrase 9,129 test questions.
REPHRASED_ROWS = 211_572
# Videos that version 2 adds: 1,040 rows of its table, 190 of them with a mirrored copy.
ADDITIONAL_VIDEOS = 1_230
ADDITIONAL_VIDEOS_BLOB = '8aa0670d21252285bd4b7acab624b33e2373bd98'  # of the table


def find(name: str) -> PublishedFile | None:
    """Return what is known about a file by its name; None if nothing is.

    Args:
      name: its path in its repository, as in layout.FILES, or the name of a file of MUSIC-AVQA-R.
    """
    if name in COPIES:
        return dataclasses.replace(FILES[COPIES[name]], is_copy=True)
    return FILES.get(name) or REPHRASED.get(name)


def name_of(blob: str) -> str | None:
    """Return the name of the published annotation file with this hash; None if there is none."""
    known = FILES | REPHRASED
    return next((name for name, file in known.items() if file.blob == blob), None)


def git_blob(path: Path) -> str:
    """Return the hash that `git hash-object` prints for a file."""
    content = path.read_bytes()
    return hashlib.sha1(b'blob %d\0' % len(content) + content).hexdigest()
