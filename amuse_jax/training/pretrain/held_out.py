"""The videos that pretraining trains on, and those that validate it.

MUSIC-AVQA is split by question, so nearly all videos with validation questions are train videos
too: about ten of version 1 are not. A score on ten videos says little. So train videos are held out
where too few others are left.
"""

import hashlib
import math
from pathlib import Path

from absl import logging

from amuse_jax.data.prepared import Prepared
from amuse_jax.errors import StageError
from amuse_jax.music_avqa import videos


def records_by_split(prepared: Path, share: float) -> dict[str, list[int]]:
    """Return the records to train on ('train') and those to validate on ('val').

    Records with validation questions but no train questions validate. If they are fewer than
    `share` of both, train videos are held out until they are not. A hash of a performance's name
    decides which, so that all videos of one performance stay together and every run holds out the
    same ones.

    Args:
      prepared: the folder of the prepare stage.
      share: smallest share of the records that validate.

    Raises:
      StageError: no record is left for one of the two.
    """
    source = Prepared(prepared)
    train, val = map(source.records_of, ('train', 'val'))
    val -= train
    total = len(train) + len(val)
    missing = math.ceil(share * total) - len(val)
    names = {each: videos.performance_name(source.videos[each]['video_id']) for each in train}
    held_out: set[int] = set()
    for performance in sorted(set(names.values()), key=_hash):
        if len(held_out) >= missing:
            break
        held_out |= {record for record in train if names[record] == performance}
    if held_out:
        logging.info(
            'pretrain: %d of %d videos have validation questions and no train questions; %d train '
            'videos are held out to validate the encoders (pretrain.val_share=%g)',
            len(val), total, len(held_out), share,
        )  # fmt: skip
    splits = {'train': sorted(train - held_out), 'val': sorted(val | held_out)}
    for split, records in splits.items():
        if not records:
            raise StageError(
                f'{prepared} leaves no {split} video: {len(train)} videos have train questions and '
                f'{len(val)} others have validation questions; pretraining needs videos to train '
                f'on and others to validate on (config.pretrain.val_share is {share:g})'
            )
    return splits


def _hash(name: str) -> bytes:
    return hashlib.sha256(f'pretrain\0{name}'.encode()).digest()
