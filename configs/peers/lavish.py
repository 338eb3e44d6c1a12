"""LAVISH (Lin et al., CVPR 2023) on MUSIC-AVQA v1: released code, commit 97722b0 of GenjiB/LAVISH.

    python -m amuse_jax.main --config=configs/peers/lavish.py               # lists what is needed
    python -m amuse_jax.main --config=configs/peers/lavish.py --config.data.root=DIR
    python -m amuse_jax.main --config=configs/peers/lavish.py --stages=summary

Needs: the videos and the first annotation files (data/json) in DIR, the filter banks of the stage
features, which need no weights, and Swin-V2-L's checkpoint. This config has never been run on the
videos.

Published: 77.1 % in its paper (Table 3 and 7), probably validation questions with the types of test
questions. Other groups' runs of the released code: 74.0 % (DG-SCT's paper) and 74.46 % of the 9,185
test questions (copied by QA-TIGER). The 76.10 % in the Amuse paper's Table 2 is of validation
questions.

The values are the flags of the README, from which follow the paper's numbers of parameters, 21.09 M
that are trained and 249.8 M in all, with layers that its forward never calls. The paper's appendix
has 16 latents, a reduction of 4 and 2 groups, and 3e-6 for the head; train.sh has other values
again. The release has groups with a learning rate of their own and does not use them.

The release starts its grounding from the file of AVST's first stage, which AVST's repository has:
--config.peer.grounding.weights=main_grounding_gen_best.pt. Without it the weights are random.

Differs from the release: the frozen tower has no stochastic depth
(--config.peer.disturb.drop_path=0.1 takes it back); frames of other videos are drawn from
ten per video, not from sixty.
"""

from amuse_jax.config import default_config


def get_config():
    c = default_config()
    c.name = 'peers/lavish'
    c.data.annotations = 'v1-json'  # base_options.py: data/json
    c.data.image_size = 192  # dataloader_avst.py
    c.checkpoints.visual = 'timm/swinv2_large_window12_192.ms_in22k'  # net_avst.py
    c.features.arrays = ('fbank',)
    c.peer.update(
        name='lavish',
        inputs='features',  # the filter banks
        epochs=30,  # README
        patience=5,  # README: early_stop
        batch_size=1,  # README and appendix; train.sh has 32
        questions=1,  # the dataloader's items are single questions
        learning_rate=8e-5,  # README; for all parameters, because the groups are not used
        decay_every=8,  # StepLR(step_size=8, gamma=0.1)
        weight_decay=0.0,
        match_weight=0.5,  # main_avst.py
        # All but the tower; of the tower its norms (README: is_vit_ln 1).
        trainable=r'^(?!swin\.)|^swin\..*norm',
        width=512,  # net_avst.py
        dropout=0.1,  # net_avst.py: of the temporal attention
        grounding=dict(weights=''),  # main_grounding_gen_best.pt: give it on the command line
        adapter=dict(
            latents=64,  # README: num_tokens; appendix: 16
            reduction=8,  # README: Adapter_downsample; appendix: 4
            groups=4,  # README: num_conv_group; appendix: 2
            audio_gate=True,  # README: is_gate 1
        ),
    )
    return c
