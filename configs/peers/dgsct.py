"""DG-SCT (Duan et al., NeurIPS 2023) on MUSIC-AVQA v1: released code, commit 211fc57.

    python -m amuse_jax.main --config=configs/peers/dgsct.py                # lists what is needed
    python -m amuse_jax.main --config=configs/peers/dgsct.py --config.data.root=DIR
    python -m amuse_jax.main --config=configs/peers/dgsct.py --stages=summary

Released code: haoyi-duan/DG-SCT, folder DG-SCT/AVQA.

Needs: the videos and the first annotation files (data/json) in DIR, the log-mels of the stage
features, which need no weights, and the checkpoints of Swin-V2-L and of AudioSet's HTS-AT, whose
file the authors of HTS-AT publish: --config.checkpoints.audio=HTSAT_AudioSet_Saved_1.ckpt. This
config has never been run on the videos.

Memory: 256.8 million parameters are trained, which are 4.1 GB in float32 with gradients and Adam's
moments. The 43.6 million of its paper are of another task.

Published: 74.8 % in the paper's table; 74.62 % of the 9,185 test questions by types, as in the
Amuse paper's Table 2.

Differs from the release: the grounding starts from random weights, not from those of a first stage
of its own (docs/peers.md); training does not disturb the frozen towers
(--config.peer.disturb.drop_path=0.1 --config.peer.disturb.batch_statistics
--config.peer.disturb.spec_augment --config.peer.disturb.mixup take it back); a video is
never its own negative.
"""

from amuse_jax.config import default_config


def get_config():
    c = default_config()
    c.name = 'peers/dgsct'
    c.data.annotations = 'v1-json'  # data/json
    c.data.image_size = 192  # dataloader_avst.py
    c.checkpoints.visual = 'timm/swinv2_large_window12_192.ms_in22k'  # net_avst.py
    c.checkpoints.audio = ''  # no hub has the file: give it on the command line
    c.features.arrays = ('log_mel_seconds',)
    c.peer.update(
        name='dgsct',
        inputs='features',  # log-mels of one second, repeated to ten
        epochs=80,  # base_options.py
        patience=3,  # base_options.py: early_stop
        batch_size=8,  # train.sh and appendix
        questions=1,  # the dataloader's items are single questions
        learning_rate=1e-4,  # appendix; for all parameters, because the groups are not used
        decay_every=8,  # StepLR(step_size=8, gamma=0.1)
        weight_decay=0.0,
        match_weight=0.5,  # main_avst.py
        trainable='^(adapters|projection|head)',  # is_vit_ln 0: the towers' norms are frozen
        width=1536,  # net_avst.py: the channels of Swin-V2-L's last map
        dropout=0.1,  # net_avst.py: of the temporal attention
        adapter=dict(
            latents=2,  # train.sh: num_tokens
            reduction=8,  # train.sh: Adapter_downsample
            groups=4,  # base_options.py: num_conv_group
            audio_gate=False,  # base_options.py: is_gate 0
            base=0.7,  # net_avst.py: 1 - alpha; Eq. 6 of the paper has 1
        ),
    )
    return c
