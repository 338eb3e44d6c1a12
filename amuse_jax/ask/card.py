"""The model card of an exported model: data, recipe, results with intervals, licences."""

import importlib.resources
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from amuse_jax.config import default_config
from amuse_jax.evaluation import tables
from amuse_jax.system.manifest import read_manifest

SCORES = 'scores.json'
_TEMPLATE = 'card.md.jinja'
# Settings that lead to the data set's files; the card names the data set, not its place.
_PLACES = ('data.root', 'data.videos', 'data.rephrased')
_TOWERS = {'visual': 'Swin-V2', 'audio': 'HTS-AT', 'text': 'text tower'}


def is_about(evaluate: Path, fingerprint: str) -> bool:
    """Return whether a finished evaluation in a folder is one of the model with a fingerprint."""
    if read_manifest(evaluate) is None or not (evaluate / SCORES).is_file():
        return False
    return tables.read_scores(evaluate).get('model', {}).get('fingerprint') == fingerprint


def from_folders(folders: Mapping[str, Path]) -> str:
    """Return the text of the model card of a run's model.

    Args:
      folders: the folders of prepare, rois, pretrain and train, by name, and that of `evaluate`, if
        there is one.
    """
    manifests = {name: read_manifest(folder) or {} for name, folder in folders.items()}
    recorded: dict[str, Any] = {}
    for name, manifest in manifests.items():
        if name != 'evaluate':
            recorded |= _flat(manifest.get('settings', {}))
    scores = tables.read_scores(folders['evaluate']) if 'evaluate' in folders else None
    summaries = {name: each.get('summary', {}) for name, each in manifests.items()}
    return render(recorded, summaries, scores)


def render(
    recorded: Mapping[str, Any], summaries: Mapping[str, Mapping], scores: Mapping | None
) -> str:
    """Return the text of a model card, with metadata for the Hugging Face hub.

    Args:
      recorded: the settings that the model was made with, by dotted name.
      summaries: the summaries of the stages by name.
      scores: content of scores.json; None if the model was not evaluated.
    """
    from amuse_jax.evaluation import report  # Matplotlib takes a second to import

    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    template = importlib.resources.files('amuse_jax.ask').joinpath(_TEMPLATE).read_text('utf-8')
    is_rendered = not recorded.get('data.root')
    settings = {
        name: _without_folder(value) for name, value in recorded.items() if name not in _PLACES
    }
    towers = {
        name: settings[f'checkpoints.{part}']
        for part, name in _TOWERS.items()
        if settings.get(f'checkpoints.{part}')
    }
    return environment.from_string(template).render(
        metadata=_metadata(is_rendered, towers, scores),
        is_rendered=is_rendered,
        annotations=settings.get('data.annotations', 'plain'),
        towers=towers,
        has_own_detector=not settings.get('rois.weights'),
        recipe=_flat(default_config().to_dict()) | settings,  # an old run may have had fewer
        settings_json=json.dumps(settings, indent=1, sort_keys=True),
        prepare=summaries.get('prepare', {}),
        rois=summaries.get('rois', {}),
        pretrain=summaries.get('pretrain', {}),
        train=summaries.get('train', {}),
        scores=scores,
        tables=[] if scores is None else report.markdown_tables(scores),
        notes=[] if scores is None else report.table_notes(scores),
    )


def _metadata(is_rendered: bool, towers: Mapping[str, str], scores: Mapping | None) -> str:
    """Return the YAML at the top of the card."""
    from huggingface_hub import EvalResult, ModelCardData

    results = None
    if scores is not None:
        results = [
            EvalResult(
                task_type='visual-question-answering',
                dataset_type='rendered-performances' if is_rendered else 'music-avqa',
                dataset_name=_data_name(is_rendered),
                dataset_split=name,
                metric_type='accuracy',
                metric_name='accuracy in per cent',
                metric_value=round(part['rows']['Amuse']['Avg'], 2),
            )
            for name, part in scores['parts'].items()
            if not math.isnan(part['rows']['Amuse']['Avg'])
        ]
    bases = [name for name in towers.values() if name.count('/') == 1]
    data = ModelCardData(
        language='en',
        license='apache-2.0' if is_rendered and not towers else 'other',
        license_name=None if is_rendered and not towers else 'see-the-model-card',
        library_name='amuse_jax',
        pipeline_tag='visual-question-answering',
        tags=['audio-visual-question-answering', 'music', 'jax', 'flax'],
        base_model=bases or None,
        model_name='Amuse' if results else None,
        eval_results=results or None,
    )
    return data.to_yaml()


def _data_name(is_rendered: bool) -> str:
    return 'performances rendered by amuse_jax' if is_rendered else 'MUSIC-AVQA'


def _flat(settings: Mapping, prefix: str = '') -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        is_section = isinstance(value, Mapping)
        flat |= _flat(value, f'{prefix}{name}.') if is_section else {prefix + name: value}
    return flat


def _without_folder(value: Any) -> Any:
    """Return a setting without the folder of a file; names on the hub stay as they are."""
    if isinstance(value, str) and value.startswith(('/', '~', '.')):
        return Path(value).name
    return value
