"""A config with small sizes, at which both sides can be built in seconds."""

from amuse_jax.config import default_config


def get_config():
    c = default_config()
    c.name = 'small'
    c.data.update(segments=3, segment_seconds=1.0, image_size=64)
    c.audio.mels = 32
    # No map is smaller than the window: Hugging Face's bias tables do not shrink with the map.
    tower = dict(patch=4, width=8, depths=(1, 1, 2, 1), heads=(1, 2, 2, 4), window=2)
    c.model.visual.update(tower, image_size=64)
    c.model.audio.update(tower, image_size=64)
    c.model.text.update(max_words=9, width=16, depth=2, heads=2, mlp_width=32)
    c.model.adapters.update(rounds=2, width=16, heads=2, mlp_width=24)
    c.model.answer.update(width=16, heads=2, layers=2, mlp_width=32, probes=3)
    c.rois.update(regions=4, feature_size=6)
    c.pretrain.update(predictor_width=12, segments=3)
    return c
