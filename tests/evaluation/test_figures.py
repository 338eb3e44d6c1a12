import json

import numpy as np
import pytest
from PIL import Image

from amuse_jax.data import vocabulary
from amuse_jax.evaluation import ablations, example_page, figures, tables


def _row(value):
    return dict.fromkeys(tables.COLUMNS, value)


def _colours(path):
    return len(np.unique(np.asarray(Image.open(path).convert('RGB')).reshape(-1, 3), axis=0))


def test_curves_bars_and_importance_are_drawn(tmp_path):
    lines = [{'step': s, 'loss': 1 / (s + 1), 'accuracy': s / 9} for s in range(9)]
    lines.append({'step': 9, 'val_loss': 0.2, 'val_accuracy': 0.8})
    (tmp_path / 'metrics.jsonl').write_text('\n'.join(map(json.dumps, lines)))
    figures.training_curves(tmp_path / 'metrics.jsonl', tmp_path / 'a.png')
    figures.accuracy_bars({'ours': _row(70.0), 'other': _row(40.0)}, tmp_path / 'b.png')
    predictions = [
        {'modality': m, 'kind': k, 'importance': {'visual': 0.25, 'regions': 0.75}}
        for m, k in vocabulary.TYPES
    ]
    figures.importance(predictions, tmp_path / 'c.png')
    for name in 'abc':
        assert _colours(tmp_path / f'{name}.png') > 10


@pytest.mark.parametrize('segments', [10, 3])
def test_a_page_shows_frames_boxes_and_answers(tmp_path, segments):
    random = np.random.default_rng(0)
    evidence = example_page.Evidence(
        frames=random.integers(0, 255, (segments, 32, 32, 3), dtype=np.uint8),
        boxes=np.tile(np.array([0.1, 0.2, 0.5, 0.9], np.float16), (segments, 2, 1)),
        classes=np.array([[20, -1]] * segments, np.int16),
        class_names=[*vocabulary.INSTRUMENTS, 'player'],
        sources=random.random((segments, 22)).astype(np.float32),
        rhythm=np.zeros(segments, np.float32),
        labels_from='annotated',
        segment_seconds=6.0,
    )
    probabilities = random.dirichlet(np.ones(42))
    example_page.draw(
        evidence, 'Which?', probabilities, {'visual': 0.4, 'audio': 0.6}, 'yes', tmp_path / 'p.png'
    )
    assert _colours(tmp_path / 'p.png') > 1000


def test_ablations_collect_the_five_rows(tmp_path):
    folders = {}
    for number, part in enumerate(ablations.ROWS):
        folders[part] = tmp_path / f'evaluate{part}'
        folders[part].mkdir()
        scores = {'Amuse': _row(10.0 + number)}
        (folders[part] / 'scores.json').write_text(json.dumps(scores))
    text = ablations.write(tmp_path / 'ablations', folders)
    for number, name in enumerate(ablations.ROWS.values()):
        line = next(line for line in text.splitlines() if line.startswith(name))
        assert line.count(f'{10 + number}.00') == len(tables.COLUMNS)
    assert (tmp_path / 'ablations' / 'table.csv').exists()
