"""PSTP-Net (Li et al., ACM MM 2023) as its released forward computes it, on MUSIC-AVQA v1.

    python -m amuse_jax.main --config=configs/peers/pstp_released.py        # lists what is needed
    python -m amuse_jax.main --config=configs/peers/pstp_released.py --config.data.root=DIR

Released code: commit 6ea3966 of GeWu-Lab/PSTP-Net. A line of its forward overwrites the results of
its four modules, so they are left out here; configs/peers/pstp_paper.py has them.

Needs: the videos and the corrected annotation files (data/json_update) in DIR, VGGish and CLIP
ViT-B/32 (docs/peers.md). This config has never been run on the videos.

Published: 69.47 %, the row "w/o all" of the paper's ablation, which has the same parameters and
FLOPs as the released forward. The paper's 73.52 % is for the whole system.
"""

from amuse_jax.config import default_config


def get_config():
    c = default_config()
    c.name = 'peers/pstp_released'
    c.data.annotations = 'v1'  # json_update, the repository's split_que_id
    c.features.arrays = ('vggish', 'clip_frames', 'clip_question', 'clip_words')
    c.features.clip = 'openai/clip-vit-base-patch32'
    c.peer.update(
        name='pstp_released',
        inputs='features',
        epochs=30,  # configs/arguments_PSTP_Net.py
        patience=0,  # the best validation of all epochs is kept
        batch_size=64,  # configs/arguments_PSTP_Net.py
        questions=1,  # the dataloader's items are single questions
        learning_rate=1e-4,  # configs/arguments_PSTP_Net.py; Adam with its defaults
        decay_every=8,  # StepLR(step_size=8, gamma=0.1); the paper has every 10
        weight_decay=0.0,
        match_weight=0.0,  # it has no such loss
        trainable='all',
        width=512,  # nets/PSTP_Net_Ours.py
        dropout=0.1,  # nets/PSTP_Net_Ours.py
        # The README's command; what they select changes no answer.
        selection=dict(segments=12, top_segments=2, top_patches=25),
        reads_with_lstm=False,  # CLIP's vector of the question
    )
    c.seed = 1  # configs/arguments_PSTP_Net.py
    return c
