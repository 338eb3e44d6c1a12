"""A report of made-up scores, for its tests."""

import json

import numpy as np
from PIL import Image

from amuse_jax.evaluation import report
from amuse_jax.evaluation import stage as evaluate
from amuse_jax.music_avqa import Question, vocabulary
from amuse_jax.system import formats
from amuse_jax.system.files import write_json
from tests.evaluation.summaries import SUMMARIES


def make_part(counts, videos=6399, share=0.6):
    """A part of the test with so many questions of each type, about so many videos."""
    rng = np.random.default_rng(0)
    kinds = [kind for kind, count in zip(vocabulary.TYPES, counts) for _ in range(count)]
    names = [f'{index % videos:08d}' for index in range(len(kinds))]
    questions = [
        Question('1', name, name, 'test', *kind, 'A', (), 'A', 'yes')
        for name, kind in zip(names, kinds)
    ]
    hits = {
        method: rng.random(len(kinds)) < share for method in (evaluate.AMUSE, *evaluate.BASELINES)
    }
    return evaluate.Part(questions, hits)


def make_example(folder, name, question='Is there a cello sound?', predicted='yes', kind=0):
    """An example with a small page."""
    page = folder / 'examples' / name
    page.parent.mkdir(exist_ok=True)
    Image.new('RGB', (64, 48), 'white').save(page)
    modality, type_name = vocabulary.TYPES[kind]
    line = {
        'video_id': 'a', 'modality': modality, 'kind': type_name, 'question': question,
        'answer': 'yes', 'predicted': predicted, 'probabilities': [0.6, 0.4],
        'importance': {'source_audio': 0.75, 'visual': 0.25},
    }  # fmt: skip
    return report.Example(line, page)


def write(folder, parts, examples):
    """Write the report of some parts; returns its scores."""
    inputs = {name: folder / name for name in ('annotate', 'rois', 'pretrain', 'train')}
    for name, path in inputs.items():
        summary = SUMMARIES.get(name, {})
        write_json(path / 'manifest.json', {'format': formats.FORMAT, 'summary': summary})
    (inputs['train'] / 'metrics.jsonl').write_text('{"step": 1, "loss": 2.0}\n')
    scores = {
        'test_set': evaluate._test_set(parts['test'].questions, 'plain'),
        'parts': {name: each.scores() for name, each in parts.items()},
    }
    predictions = [{'modality': 'Audio', 'kind': 'Counting', 'importance': {'visual': 1.0}}]
    scores = json.loads(json.dumps(scores))
    templates = [{'template': 'Where is the <LL> one?', 'questions': 1, 'Amuse': 100.0}]
    report.write(folder, inputs, scores, templates, predictions, examples)
    return scores
