"""What is known of the published annotation files: hashes and counts.

Counts were taken from the files themselves; hashes are git's (`git hash-object FILE`). Not every
file could be had to count or hash: what is None is not known.
"""

import dataclasses
import hashlib
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class KnownFile:
    """A published annotation file.

    Attributes:
      blob: the hash by which git knows its content.
      rows: how many it has.
      videos: how many different video_ids they name.
      types: its rows by type, in the order of vocabulary.TYPES.
    """

    blob: str | None = None
    rows: int | None = None
    videos: int | None = None
    types: tuple[int, ...] | None = None


# By the path in the repository, as in layout.FILES.
FILES = {
    'data/json/avqa-train.json': KnownFile('d1da1c6da7ea5a523b93d0dc73444f3b69967528', 32087),
    'data/json/avqa-val.json': KnownFile(
        None, 4595, 3815, (515, 299, 600, 614, 499, 635, 462, 557, 414)
    ),
    'data/json/avqa-test.json': KnownFile(
        None, 9185, 6399, (1022, 601, 1199, 1228, 995, 1274, 927, 1115, 824)
    ),
    'data/json_update/avqa-train.json': KnownFile(
        'dfb9233f598bb27ce6d2783ca377131a6ae2be2c', 31927
    ),
    'data/json_update/avqa-val.json': KnownFile(
        'dcda27ddfd5de55e8e5723b5ffe5b40d35efeabc',
        4568,
        3815,
        (511, 295, 600, 613, 495, 633, 461, 549, 411),
    ),
    'data/json_update/avqa-test.json': KnownFile(
        None, 9129, 6399, (1017, 594, 1197, 1225, 988, 1265, 920, 1101, 822)
    ),
    'data/balance_full_set/train_balance.json': KnownFile(
        '5b5ef1934f4f538a2ea15aa853ba34bfe52ff29a'
    ),
    'data/balance_full_set/test_balance.json': KnownFile(
        None, 10819, 7138, (1382, 643, 1505, 1338, 1223, 1740, 920, 1101, 967)
    ),
    'data/bias_set/train_bias.json': KnownFile('fd92f964a630e4f321a1ab56b3641757791ab6e8'),
    'data/bias_set/test_bias.json': KnownFile(
        'b53e69bf83d061fa90b3c54e5e4c5d87cc5f32c8',
        9119,
        6456,
        (1022, 607, 1222, 1230, 901, 1292, 920, 1101, 824),
    ),
    'data/annots/music_avqa_v2/balance_train.json': KnownFile(
        'fce92b7be3c86406acd4782f708cf9069d2dea31'
    ),
    'data/annots/music_avqa_v2/balance_valid.json': KnownFile(
        None, 5346, 4317, (686, 314, 737, 664, 594, 861, 460, 549, 481)
    ),
    'data/annots/music_avqa_v2/bias_train.json': KnownFile(
        '22b37bf43d6deee82e517efc6945e1a3e28fc6f6'
    ),
    'data/annots/music_avqa_v2/bias_valid.json': KnownFile(
        None, 4499, 3757, (506, 295, 596, 611, 433, 638, 460, 549, 411)
    ),
}
REPHRASED_ROWS = 211_572  # of MUSIC-AVQA-R, head and tail together; from 9,129 test questions
ADDITIONAL_VIDEOS = 1_230  # of version 2: 1,040 in its table, 190 of them also mirrored


def git_blob(path: Path) -> str:
    """The hash that `git hash-object` prints for a file."""
    content = path.read_bytes()
    return hashlib.sha1(b'blob %d\0' % len(content) + content).hexdigest()
