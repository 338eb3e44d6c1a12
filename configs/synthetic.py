"""The demo at a size for one GPU: rendered performances, Swin-V2-T and HTS-AT from scratch.

python -m amuse_jax.main --config=configs/synthetic.py
"""

from amuse_jax.config import default_config, parse_without


def get_config(argument: str = ''):
    c = default_config()
    c.name = 'synthetic'
    c.without = parse_without(argument)
    c.synthetic.update(videos=4000, width=640, height=360, fps=15)
    c.rhythm.tracker = 'tempo'
    c.sources.stems = 'truth'
    c.rois.image_size = 320
    c.rois.detector.update(epochs=20, frames=0)
    c.model.dtype = 'bfloat16'
    c.model.visual.update(width=96, depths=(2, 2, 6, 2), heads=(3, 6, 12, 24))
    c.model.text.update(
        tokenizer='questions', max_words=20, width=256, depth=6, heads=8, mlp_width=1024
    )
    c.model.adapters.update(rounds=6, width=128)
    c.model.answer.update(width=256, mlp_width=512)
    c.pretrain.update(epochs=30, batch_size=32, segments=4, mix=0.5)
    c.train.update(
        head_epochs=30, epochs=10, questions=12, batch_size=32, head_learning_rate=1e-3,
        towers_from='sources', learning_rate=3e-4,
    )  # fmt: skip
    return c
