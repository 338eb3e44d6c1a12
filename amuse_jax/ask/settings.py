"""The settings that a model's answers depend on, in an exported model.

They come from outside, so their names, types and sizes are checked before a model is built.
"""

import math
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from amuse_jax.config import HEADS, PARTS, default_config, setting
from amuse_jax.errors import StageError, first_few

# Names of settings and of whole sections. All others are of the data set, the training or the
# machine, and so are the limits for reading a video.
NAMES = (
    'without', 'data.segments', 'data.segment_seconds', 'data.image_size', 'audio',
    'rois.image_size', 'rois.regions', 'rois.min_score', 'rois.max_overlap', 'rois.feature_size',
    'model', 'pretrain.predictor_width', 'train.epochs',
)  # fmt: skip
TOKENIZER = 'model.text.tokenizer'
_ALLOWED = {
    'without': ('', *PARTS),
    'model.dtype': ('float32', 'bfloat16'),
    'model.head': HEADS,
}
_ALLOWED_ZERO = (
    'rois.min_score', 'rois.max_overlap', 'train.epochs', 'audio.low_hz', 'model.answer.dropout',
    'model.visual.pretrained_windows',
)  # fmt: skip
# Largest numbers by the last part of a name. A file of weights bounds the other sizes, but these
# decide how much memory a video or a table of a model takes.
_LARGEST = {
    'segments': 1000, 'segment_seconds': 3600, 'image_size': 8192, 'regions': 1000, 'window': 64,
    'pretrained_windows': 256, 'max_words': 4096, 'depths': 200, 'depth': 200, 'layers': 200,
    'rounds': 200, 'sample_rate': 384_000, 'min_score': 1, 'max_overlap': 1, 'dropout': 1,
}  # fmt: skip
_LARGEST_OTHER = 100_000
_LONGEST_WINDOW = 65_536  # samples, of audio.window and audio.hop


def select(config: ConfigDict) -> dict[str, Any]:
    """Return the settings that answers depend on by dotted name, without the tokenizer's.

    The values are JSON values.
    """
    flat = _flat(config)
    return {name: list(x) if isinstance(x, tuple) else x for name, x in flat.items()}


def restore(values: Mapping[str, Any]) -> ConfigDict:
    """Return the default settings, changed to these.

    Args:
      values: what `select` has returned, maybe in an older version, which may have had fewer
        settings.

    Raises:
      StageError: a name is unknown, or a value is not of the setting's type or size.
    """
    config = default_config()
    defaults = _flat(config)
    unknown = sorted(set(values) - set(defaults))
    if unknown:
        raise StageError(
            f'the settings {first_few(unknown, ", ")} are unknown; expected those of a model that '
            'this version of amuse_jax can read; update amuse_jax'
        )
    for name, value in values.items():
        problem = _problem(name, value, defaults[name])
        if problem:
            raise StageError(f'the setting {name} is {value!r:.60}; expected {problem}')
        value = tuple(value) if isinstance(value, list) else value
        config.update_from_flattened_dict({name: value})
    return config


def _flat(config: ConfigDict) -> dict[str, Any]:
    flat: dict[str, Any] = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, ConfigDict):
            for inner, each in value.items():
                add(f'{name}.{inner}', each)
        elif name != TOKENIZER:
            flat[name] = value

    for name in NAMES:
        add(name, setting(config, name))
    return flat


def _problem(name: str, value: Any, default: Any) -> str:
    """Return what was expected of a setting; '' if the value is fine."""
    if isinstance(default, tuple):
        if not isinstance(value, list) or len(value) != len(default):
            return f'a list of {len(default)} numbers'
        problems = [_problem(name, each, of) for each, of in zip(value, default)]
        return next(filter(None, problems), '')
    if isinstance(default, str):
        allowed = _ALLOWED[name]
        return '' if value in allowed else f'one of {", ".join(map(repr, allowed))}'
    kinds = int if isinstance(default, int) else int | float
    is_number = isinstance(value, kinds) and not isinstance(value, bool)
    if not is_number or (isinstance(value, float) and not math.isfinite(value)):
        return 'an integer' if kinds is int else 'a number'
    last = name.rpartition('.')[2]
    largest = _LARGEST.get(last, _LARGEST_OTHER)
    if name in ('audio.window', 'audio.hop'):
        largest = _LONGEST_WINDOW
    if value > largest or value < 0 or (not value and name not in _ALLOWED_ZERO):
        return f'{"at least 0" if name in _ALLOWED_ZERO else "more than 0"} and at most {largest}'
    return ''
