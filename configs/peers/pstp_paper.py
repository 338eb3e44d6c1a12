"""PSTP-Net (Li et al., ACM MM 2023) as its paper describes it, on MUSIC-AVQA v1.

    python -m amuse_jax.main --config=configs/peers/pstp_paper.py           # lists what is needed
    python -m amuse_jax.main --config=configs/peers/pstp_paper.py --config.data.root=DIR

The four modules are repaired and used (amuse_jax/models/peers/pstp.py says how); the released code
overwrites their results (configs/peers/pstp_released.py).

Needs: the videos and the corrected annotation files (data/json_update) in DIR, VGGish and CLIP
ViT-B/32 (docs/peers.md). This config has never been run on the videos.

Published: 73.52 % of the 9,129 test questions (the paper's Table 1). Its nine accuracies per type
were scored with the types of another file, so they cannot be compared.
"""

from amuse_jax.config import default_config


def get_config():
    c = default_config()
    c.name = 'peers/pstp_paper'
    c.data.annotations = 'v1'  # json_update, the repository's split_que_id
    c.features.arrays = (
        'vggish', 'clip_frames', 'clip_patches', 'clip_question', 'clip_words',
    )  # fmt: skip
    c.features.clip = 'openai/clip-vit-base-patch32'
    c.peer.update(
        name='pstp_paper',
        inputs='features',
        epochs=30,  # the paper and configs/arguments_PSTP_Net.py
        patience=0,  # the best validation of all epochs is kept
        batch_size=64,  # the paper and configs/arguments_PSTP_Net.py
        questions=1,  # the dataloader's items are single questions
        learning_rate=1e-4,  # the paper and configs/arguments_PSTP_Net.py; Adam
        decay_every=10,  # the paper; the code has every 8
        weight_decay=0.0,
        match_weight=0.0,  # it has no such loss
        trainable='all',  # the attention that selects gets no gradient
        width=512,  # nets/PSTP_Net_Ours.py
        dropout=0.1,  # nets/PSTP_Net_Ours.py
        # The paper: 20 segments, top_k 7, top_m 20. The README's command has 12, 2 and 25.
        selection=dict(segments=20, top_segments=7, top_patches=20),
        reads_with_lstm=False,  # CLIP's vector of the question
    )
    c.seed = 1  # configs/arguments_PSTP_Net.py
    return c
