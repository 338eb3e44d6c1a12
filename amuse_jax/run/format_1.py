"""Results of format 1, which recorded the settings and one hash, or the hash alone.

The hash covers all settings as they were written, and those of the stages before.
"""

import hashlib
import json
from collections.abc import Mapping

from amuse_jax.run import made_from

# The settings of the stages that are kept, in the versions that wrote format 1.
_NAMES = {
    'rhythm': 'sample_rate segment_seconds threshold tracker',
    'sources': 'stems threshold_db threshold_score weights window_seconds',
    'rois': 'feature_size image_size max_overlap min_score regions weights',
    'rois.detector': 'batch_size depth epochs frames learning_rate seed width',
    'model.adapters': 'heads mlp_width rounds width',
    'model.answer': 'dropout heads layers mlp_width probes width',
    'model.audio': 'depths heads image_size patch width window',
    'model.visual': 'depths heads image_size patch width window',
    'model.text': 'depth epsilon heads max_words mlp_width tokenizer width',
    'checkpoints': 'audio text visual',
    'pretrain': 'batch_size epochs learning_rate mix predictor_epochs predictor_learning_rate '
    'predictor_width segments swap',
    'train': 'batch_size cache epochs gain_db halve_every head_epochs head_final_share '
    'head_learning_rate head_warmup_epochs learning_rate mirror open_questions parts questions '
    'time_shift towers_from trainable',
}
SETTINGS = {'seed', 'without', 'model.dtype'} | {
    f'{section}.{name}' for section, names in _NAMES.items() for name in names.split()
}


def fingerprint(stage: str, settings: Mapping, needs: Mapping[str, str]) -> str:
    """Return the hash of format 1.

    Args:
      stage: the stage's name.
      settings: its settings by dotted name, nested in sections.
      needs: the hashes of the stages before it.
    """
    content = {'format': 1, 'stage': stage, 'settings': settings, 'needs': dict(needs)}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def fits_begun(text: str, stage: str, wanted: Mapping, needs: Mapping[str, str]) -> bool:
    """Return whether an unfinished result was begun with the wanted settings.

    Args:
      text: the content of the file `started`.
      stage: the stage's name.
      wanted: what the present config asks for (made_from.py). Settings that format 1 did not have
        must be at their defaults.
      needs: the hashes of the stages before it.
    """
    if any(name not in SETTINGS for name in wanted['chosen']):
        return False
    return text == fingerprint(stage, _restrict(wanted['settings'], ''), needs)


def describe(
    stage: str, manifest: Mapping, needs: Mapping[str, tuple[str | None, str]], sources: str
) -> dict:
    """Return what the result of a manifest was made from, as `made_from.describe`.

    Args:
      stage: the stage's name.
      manifest: the manifest.
      needs: for each earlier stage, its present fingerprint and the one it had in format 1. If the
        latter is not the one that the manifest was made with, the need is unknown.
      sources: hash of the data set's files, if it was recorded since.
    """
    settings = manifest['settings']
    hashes = {name: old for name, (_, old) in needs.items()}
    is_intact = manifest['fingerprint'] == fingerprint(stage, settings, hashes)
    flat = made_from.flatten(settings)
    made = {
        'settings': settings,
        'chosen': sorted(name for name, value in flat.items() if made_from.is_chosen(name, value)),
        'contents': made_from.measure_paths(flat, {}),
        'needs': {name: new if is_intact else 'unknown' for name, (new, _) in needs.items()},
        'sources': sources,
        'redo': '',
    }
    return made | {'fingerprint': made_from.fingerprint(made)}


def _restrict(settings: Mapping, prefix: str) -> dict:
    """Return the settings that format 1 had."""
    kept = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            kept[name] = _restrict(value, f'{prefix}{name}.')
        elif prefix + name in SETTINGS:
            kept[name] = value
    return kept
