"""A small Amuse on performances that the run renders itself: the whole paper, with no data needed.

python -m amuse_jax.main --config=configs/demo.py
python -m amuse_jax.main --config=configs/demo.py:without=rois     # one of Table 4's ablations
python -m amuse_jax.main --config=configs/demo.py --stages=peers   # Table 2: Amuse and its peers

Needs: the packages in requirements.txt (PyTorch trains the detector); at most 1.3 GB of disk.

Time: 6.5 minutes on two cores of an Intel Xeon with AVX-512 and AMX, beside other work; with
--stages=ablations 14 minutes, with --stages=peers 20.

Memory: 3.4 GB in all processes together, measured on the same kind of machine with 40 of the 165
videos and fewer epochs.

Result: 58.5 % of the test questions, measured as the mean of the seeds 0, 1 and 2 (60.9, 60.5 and
54.0). The most frequent answer to each template reaches 39.2 %. docs/demo.md has the whole table.
"""

from amuse_jax.config import default_config, parse_without


def get_config(argument: str = ''):
    c = default_config()
    c.name = 'demo'
    c.without = parse_without(argument)
    c.synthetic.update(videos=165, fps=5, questions_per_video=16, val_share=0.09, test_share=0.17)
    c.data.image_size = 128
    c.data.shard_videos = 10  # the last ones keep both cores busy
    c.rhythm.tracker = 'tempo'
    c.sources.stems = 'truth'
    c.rois.image_size = 224
    c.rois.feature_size = 224
    c.rois.detector.update(width=0.125, epochs=4, frames=3, batch_size=8)
    c.model.visual.update(
        image_size=128, patch=8, width=32, depths=(1, 1, 2, 1), heads=(2, 4, 8, 16), window=4
    )
    c.model.audio.update(
        image_size=128, patch=8, width=32, depths=(1, 1, 2, 1), heads=(2, 4, 8, 16), window=4
    )
    c.model.text.update(
        tokenizer='questions', max_words=20, width=128, depth=2, heads=4, mlp_width=256
    )
    c.model.adapters.update(rounds=2, width=64, heads=4, mlp_width=128)
    c.model.answer.update(width=128, heads=4, layers=3, mlp_width=256, probes=8, dropout=0.3)
    c.pretrain.update(
        epochs=1, batch_size=16, segments=3, predictor_width=128, mix=0.5, swap=0.7,
        learning_rate=3e-5, predictor_epochs=80, predictor_learning_rate=2e-3,
        warmup_epochs=0.0, clip_norm=0.0,
    )  # fmt: skip
    c.train.update(
        head_epochs=8, epochs=1, mirror=0.5, questions=20, open_questions=4, batch_size=4,
        head_learning_rate=2e-3, towers_from='sources', head_warmup_epochs=1, head_final_share=0.05,
        trainable=r'adapters|text\.(?!words)|answer', warmup_epochs=0.0, clip_norm=0.0,
    )  # fmt: skip
    c.loop.update(checkpoint_seconds=30.0, optimization_level=1)
    c.mesh.data = 1  # batches of four videos keep no second device busy
    # As in training: one program validates and predicts.
    c.evaluate.batch_size = 4
    set_peers(c)
    return c


def set_peers(c):
    """Set sizes and epochs with which every peer trains in minutes (--stages=peers).

    Recipes are shortened: higher rates, few epochs, and several or all questions about a video in
    one step. The whole table, with Amuse's own training, took 20 minutes on two cores of an Intel
    Xeon beside other work.
    """
    c.peer.update(
        inputs='towers', batch_size=4, questions=20, width=128, learning_rate=1e-3, decay_every=0,
        adapter=dict(latents=16, reduction=4, groups=2, hidden=64),
        selection=dict(segments=5, top_segments=2, top_patches=2), reads_with_lstm=True,
    )  # fmt: skip
    c.peers.update(
        avst=dict(epochs=20, grounding=dict(epochs=5, batch_size=32, learning_rate=1e-3)),
        pstp_released=dict(epochs=30, match_weight=0.0),
        pstp_paper=dict(epochs=30, match_weight=0.0),
        lavish=dict(epochs=4, trainable=r'^(?!swin\.)|^swin\..*norm'),
        lstta=dict(epochs=3, questions=8, match_weight=0.0, trainable=r'^(?!visual\.|audio\.)'),
        dgsct=dict(
            epochs=4, learning_rate=5e-4, adapter=dict(latents=2, audio_gate=False),
            trainable='^(adapters|projection|head)',
        ),
        last=dict(epochs=4, trainable=r'^(?!lavish\.swin\.)|^lavish\.swin\..*norm'),
        last_att=dict(epochs=4, trainable=r'^(?!lavish\.swin\.)|^lavish\.swin\..*norm'),
    )  # fmt: skip
