"""LAST (Liu, Dong and Zhang, WACV 2024) on MUSIC-AVQA v2, from its description.

    python -m amuse_jax.main --config=configs/peers/last.py     # lists what is needed
    python -m amuse_jax.main --config=configs/peers/last.py --config.data.root=DIR
    python -m amuse_jax.main --config=configs/peers/last.py --stages=summary

arXiv 2310.06238. No code was released. amuse_jax/models/peers/last.py lists what is described, that
it builds on LAVISH, and every choice. The recipe is stated nowhere; it is LAVISH's, whose sources
are in configs/peers/lavish.py. LAST-Att is configs/peers/last_att.py.

Needs: the videos and the annotation files of version 2 in DIR, the filter banks of the stage
features, which need no weights, and Swin-V2-L's checkpoint. This config has never been run on the
videos.

Published: 74.85 % of v2's balanced test questions, after training on its balanced set, as the paper
of QA-TIGER prints it. No result on version 1 was found.
"""

from amuse_jax.config import default_config


def get_config():
    c = default_config()
    c.name = 'peers/last'
    c.data.annotations = 'v2-balance'  # the set that its paper publishes
    c.data.image_size = 192  # LAVISH's
    c.checkpoints.visual = 'timm/swinv2_large_window12_192.ms_in22k'  # LAVISH's
    c.features.arrays = ('fbank',)
    c.peer.update(
        name='last',
        inputs='features',  # the filter banks
        # Everything below is chosen: it is LAVISH's.
        epochs=30,
        patience=5,
        batch_size=1,
        questions=1,
        learning_rate=8e-5,
        decay_every=8,
        weight_decay=0.0,
        match_weight=0.5,
        trainable=r'^(?!lavish\.swin\.)|^lavish\.swin\..*norm',
        width=512,
        dropout=0.1,
        adapter=dict(latents=64, reduction=8, groups=4, audio_gate=True),
    )
    return c
