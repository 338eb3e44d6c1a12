"""LAST-Att (Liu, Dong and Zhang, WACV 2024) on MUSIC-AVQA v2, from its description.

    python -m amuse_jax.main --config=configs/peers/last_att.py     # lists what is needed
    python -m amuse_jax.main --config=configs/peers/last_att.py --config.data.root=DIR
    python -m amuse_jax.main --config=configs/peers/last_att.py --stages=summary

arXiv 2310.06238. No code was released. amuse_jax/models/peers/last.py lists what is described, that
it builds on LAVISH, and every choice. The recipe is stated nowhere; it is LAVISH's, whose sources
are in configs/peers/lavish.py. LAST-Att adds the Audio Spectrogram Transformer to LAST.

Needs: the videos and the annotation files of version 2 in DIR, the filter banks and the Audio
Spectrogram Transformer (AST) of the stage features, and Swin-V2-L's checkpoint. This config has
never been run on the videos.

Published: 75.44 % of v2's balanced test questions, after training on its balanced set, as in the
Amuse paper's Table 3. The 75.45 % in its Table 2 are of v2's biased test questions. No result on
version 1 was found.
"""

from amuse_jax.config import default_config


def get_config():
    c = default_config()
    c.name = 'peers/last_att'
    c.data.annotations = 'v2-balance'  # the set that its paper publishes
    c.data.image_size = 192  # LAVISH's
    c.checkpoints.visual = 'timm/swinv2_large_window12_192.ms_in22k'  # LAVISH's
    c.features.arrays = ('fbank', 'ast')
    c.features.ast = 'MIT/ast-finetuned-audioset-10-10-0.4593'  # chosen
    c.peer.update(
        name='last_att',
        inputs='features',  # the filter banks and AST's tokens
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
