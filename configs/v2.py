"""MUSIC-AVQA v2 at the paper's size: Table 3.

    python -m amuse_jax.main --config=configs/v2.py                       # says what is needed
    python -m amuse_jax.music_avqa check --root=DIR --annotations=v2-balance
    python -m amuse_jax.main --config=configs/v2.py --config.data.root=DIR --config.rois.weights=F

What it needs beside the videos (the detector F, the package uss, checkpoints from the Hugging Face
hub) and what to do without, v1.py says.

Every value is v1.py's, and from where it says, but for the annotations: 4.1 names "standard
training and test splits" of version 2. They are taken to be the balanced set, on which the methods
that Table 3 compares with were published; --config.data.annotations=v2-bias is the other. Version 2
comes without validation questions: one train question in eight is held out
(amuse_jax/music_avqa/splits.py).
"""

from amuse_jax.config import default_config, parse_without


def get_config(argument: str = ''):
    c = default_config()
    c.name = 'v2'
    c.without = parse_without(argument)
    c.data.annotations = 'v2-balance'
    c.model.dtype = 'bfloat16'
    c.checkpoints.update(
        visual='timm/swinv2_large_window12_192.ms_in22k',
        audio='laion/clap-htsat-unfused',
        text='google-bert/bert-base-uncased',
    )
    return c
