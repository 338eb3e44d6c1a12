"""MUSIC-AVQA v2 at the paper's size: Table 3.

    python -m amuse_jax.main --config=configs/v2.py --config.data.root=DIR

DIR is laid out as for v1.py, with the balanced set's files as avqa-train.json, avqa-val.json and
avqa-test.json.
"""

from amuse_jax import settings
from configs import base


def get_config(argument: str = ''):
    c = base.get_config()
    c.name = 'v2'
    c.without = settings.parse_without(argument)
    c.model.dtype = 'bfloat16'
    return c
