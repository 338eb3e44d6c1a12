"""LSTTA (Liu et al., ACM MM 2023, arXiv 2308.14274) on MUSIC-AVQA v1, from its paper.

    python -m amuse_jax.main --config=configs/peers/lstta.py                # lists what is needed
    python -m amuse_jax.main --config=configs/peers/lstta.py --config.data.root=DIR
    python -m amuse_jax.main --config=configs/peers/lstta.py --stages=summary

No code was released, and the paper names encoders that nobody has published.
amuse_jax/models/peers/lstta.py lists every choice that the paper leaves open; those of the recipe
are marked "chosen" below.

Needs: the videos and the first annotation files in DIR, and the checkpoints of Swin-V2-L, HTS-AT
and BERT. This config has never been run on the videos.

Published: 81.19 %, the mean of its three groups' means; weighted by questions it is 80.64 %. Its
accuracies look like those of validation questions with the types of test questions, but that is
not proved.
"""

from amuse_jax.config import default_config


def get_config():
    c = default_config()
    c.name = 'peers/lstta'
    c.data.annotations = 'v1-json'  # chosen: as LAVISH, which it runs again
    c.checkpoints.update(
        visual='timm/swinv2_large_window12_192.ms_in22k',  # chosen; the paper has a CLIP ViT-L
        audio='laion/clap-htsat-unfused',  # chosen; the paper has a w2v-Conformer
        text='google-bert/bert-base-uncased',  # chosen; the paper has a text encoder of 24 layers
    )
    c.model.adapters.rounds = 6  # chosen: the towers' third stages in six parts
    c.peer.update(
        name='lstta',
        inputs='features',  # frames and log-mels of the records alone
        epochs=30,  # chosen: LAVISH's
        patience=5,  # chosen: LAVISH's
        batch_size=8,  # chosen: one video for each of the paper's 8 GPUs
        questions=1,
        learning_rate=8e-5,  # the paper's initial learning rate
        decay_every=0,  # the paper: cosine decay
        weight_decay=0.01,  # AdamW in the paper; the value is chosen: PyTorch's default
        match_weight=0.0,  # the paper names no such loss
        trainable='^(blocks|visual_out|audio_out|question|attend_|fuse|answer)',  # towers frozen
        width=768,  # chosen; 1024 in the paper, the width of its encoders
        dropout=0.1,  # chosen: AVST's
        adapter=dict(
            latents=64,  # the paper: K
            hidden=512,  # the paper: D_h
        ),
    )
    return c
