"""MUSIC-AVQA v1 at the paper's size: Tables 2 and 4.

    python -m amuse_jax.main --config=configs/v1.py --config.data.root=DIR
    python -m amuse_jax.main --config=configs/v1.py --stages=summary      # needs no data

DIR holds videos/<video_id>.mp4 and avqa-train.json, avqa-val.json, avqa-test.json, the last three
from the data set's json_update folder. Every value is the paper's: see base.py.
"""

from amuse_jax import settings
from configs import base


def get_config(argument: str = ''):
    c = base.get_config()
    c.name = 'v1'
    c.without = settings.parse_without(argument)
    c.model.dtype = 'bfloat16'
    return c
