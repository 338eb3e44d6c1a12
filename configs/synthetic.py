"""The demo at a size for one GPU: rendered performances, Swin-V2-T and HTS-AT from random weights.

python -m amuse_jax.main --config=configs/synthetic.py

This config has never been run. Everything below is an estimate, and the result is unknown.

Needs: the packages in requirements.txt and jax for CUDA (pip install '.[cuda]'); at most 64 GB of
disk, 24 GB of them for the videos; no data.

Memory on one H100 (80 GB): 36.9 GB of temporary memory. With the default remat_policy, products, it
is 140.6 GB, which does not fit. Both are what a compiler planned for a step of 32 videos with 12
questions each, when attention on GPUs was no kernel yet.

Time of the parts that can be estimated from other numbers:

  render     6 core-hours for 4,000 videos: four of them were rendered at 10.9 times real time per
             core of an Intel Xeon
  prepare    7 to 11 core-minutes: 0.10 to 0.17 s per video (docs/speed.md)
  pretrain   8 minutes on an H100: 38 PFLOP of matrix products at 75 TFLOP/s, the rate of the step
             with products below
  train      at least 14 minutes on an H100 for the 10 epochs with open adapters: 875 steps, each of
             which moves 3,244 GB at 3.35 TB/s (with products 23 minutes, 5,237 GB for 117 TFLOP)

The detector's 20 epochs, the regions and the head epochs come on top.

Expected result: unknown. The demo reaches 57.5 % with 165 videos and a fifteenth of the parameters.
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
    c.loop.remat_policy = 'inputs'
    return c
