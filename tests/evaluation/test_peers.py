import json
import shutil

import numpy as np
import pytest

from amuse_jax.errors import StageError
from amuse_jax.evaluation import peers, published, report, tables
from amuse_jax.evaluation import stage as evaluate
from amuse_jax.system import formats
from amuse_jax.system.files import write_json
from amuse_jax.training.peers import stage as train
from tests.evaluation.read_back import from_csv
from tests.training.peers import conftest as small

features = small.features  # the fixture


def _scores(folder, method, value, questions=100, notes=()):
    """Write a scores.json in which the model and the baselines have one accuracy each."""
    rows = {
        name: dict.fromkeys(tables.COLUMNS, number)
        for name, number in ((method, value), *zip(evaluate.BASELINES, (40.0, 45.0)))
    }
    intervals = {
        name: {column: (each - 3, each + 3) for column, each in row.items()}
        for name, row in rows.items()
    }
    scores = {
        'test_set': {'published': 'v1', 'questions': questions},
        **({'notes': list(notes)} if notes else {}),
        'parts': {'test': {'rows': rows, 'intervals': intervals}},
    }
    folder.mkdir()
    write_json(folder / 'scores.json', scores)
    return folder


def test_the_table_has_all_models_the_baselines_and_the_published_rows(tmp_path):
    folders = {
        'Amuse': _scores(tmp_path / 'a', 'Amuse', 60.0),
        'AVST': _scores(tmp_path / 'b', 'AVST', 50.0, notes=[peers.STAND_INS_NOTE]),
        'LAST-Att': _scores(tmp_path / 'c', 'LAST-Att', 55.0, notes=[peers.STAND_INS_NOTE]),
    }
    text = peers.write(tmp_path / 'peers', folders)
    rows = from_csv((tmp_path / 'peers/table.csv').read_text())
    expected = {'Amuse': 60, 'AVST': 50, 'LAST-Att': 55} | dict(zip(evaluate.BASELINES, (40, 45)))
    for name, value in expected.items():
        assert rows[name] == dict.fromkeys(tables.COLUMNS, value)
        assert rows[f'{name}, 95 % from']['Avg'] == value - 3
        assert f'\n{name} ' in text and f'\n{name}, {report.MARGIN} ' in text
    assert text.count(peers.STAND_INS_NOTE) == 1
    assert all(name in rows for name in published.with_verdicts(published.methods('v1')))
    assert (tmp_path / 'peers/accuracy.png').stat().st_size > 10_000


def test_models_that_were_asked_other_questions_make_no_table(tmp_path):
    folders = {
        'Amuse': _scores(tmp_path / 'a', 'Amuse', 60.0),
        'AVST': _scores(tmp_path / 'b', 'AVST', 50.0, questions=99),
    }
    with pytest.raises(StageError, match=r'Amuse 100, AVST 99\); run --stages=peers with one'):
        peers.write(tmp_path / 'peers', folders)


def test_a_peer_is_evaluated_under_its_name_without_importance_and_examples(
    features, tmp_path_factory
):
    config = small.peer_config('pstp_released', epochs=1, width=16)
    folder = tmp_path_factory.mktemp('evaluate')
    inputs = features | {'train': tmp_path_factory.mktemp('train')}
    train.run(config, inputs['train'], inputs)
    for name, where in inputs.items():
        manifest = {'format': formats.FORMAT, 'fingerprint': name, 'settings': {}, 'summary': {}}
        write_json(where / 'manifest.json', manifest)
    rows = evaluate.run_peer(config, folder, inputs)
    assert list(rows) == ['PSTP-Net (released)', *evaluate.BASELINES]
    lines = [json.loads(line) for line in (folder / 'predictions.jsonl').open()]
    assert len(lines) == 3 and all('importance' not in line for line in lines)
    hits = [line['predicted'] == line['answer'] for line in lines]
    assert rows['PSTP-Net (released)']['Avg'] == pytest.approx(100 * sum(hits) / 3)
    page = (folder / 'report.html').read_text()
    assert 'PSTP-Net (released)' in page and 'id="importance"' not in page
    assert 'id="quality"' not in page and 'id="training"' in page
    markdown = (folder / 'report.md').read_text()
    assert 'Importance' not in markdown and 'Annotators' not in markdown
    assert f'\nPSTP-Net (released), {report.MARGIN}' in (folder / 'table.txt').read_text()


@pytest.mark.parametrize('reads_with_lstm', [False, True])
def test_a_peer_is_evaluated_on_rephrased_questions_beside_its_own_test_set(
    features, tmp_path, reads_with_lstm
):
    """As MUSIC-AVQA-R has them: two wordings of every test question, of head and tail answers.

    Most of their words are in no train question. CLIP has a vector for every wording.
    """
    prepared, folder = tmp_path / 'prepare', tmp_path / 'evaluate'
    shutil.copytree(features['prepare'], prepared)
    rows = json.loads((prepared / 'questions.json').read_text())
    test = [row for row in rows if row['split'] == 'test']
    wordings = 'Say, where is it?', 'So who plays where?'
    rephrased = [
        row | {'split': 'rephrased', 'frequency': mark, 'text': words, 'template': words}
        for row, mark in zip(test, ('head', 'tail', 'head'), strict=True)
        for words in wordings
    ]
    write_json(prepared / 'questions.json', rows + rephrased)
    given = tmp_path / 'features'
    shutil.copytree(features['features'], given)
    texts = json.loads((given / 'questions.json').read_text())
    write_json(given / 'questions.json', [*texts, *wordings])
    for array in ('clip_question', 'clip_words'):
        known = np.load(given / f'{array}.npy')
        np.save(given / f'{array}.npy', np.concatenate([known, known[:2] + np.float16(1)]))

    inputs = {'prepare': prepared, 'features': given, 'train': tmp_path / 'train'}
    config = small.peer_config('pstp_released', epochs=1, width=16, reads_with_lstm=reads_with_lstm)
    for where in (folder, inputs['train']):
        where.mkdir()
    train.run(config, inputs['train'], inputs)
    for stage, where in inputs.items():
        manifest = {'format': formats.FORMAT, 'fingerprint': stage, 'settings': {}, 'summary': {}}
        write_json(where / 'manifest.json', manifest)
    title = next(iter(evaluate.run_peer(config, folder, inputs)))

    parts = tables.read_scores(folder)['parts']
    asked = {part: content['questions']['Avg'] for part, content in parts.items()}
    expected = {'test': 3, 'rephrased': 6, 'rephrased, head': 4, 'rephrased, tail': 2}
    assert asked == expected
    lines = [json.loads(line) for line in (folder / 'predictions.jsonl').open()]
    assert len(lines) == 9
    written = from_csv((folder / 'table.csv').read_text())
    marked = {row['question_id']: row['frequency'] for row in rephrased}
    for part, split, marks in (
        ('test', 'test', ('head', 'tail')),
        ('rephrased', 'rephrased', ('head', 'tail')),
        ('rephrased, head', 'rephrased', ('head',)),
        ('rephrased, tail', 'rephrased', ('tail',)),
    ):
        hits = [
            line['predicted'] == line['answer']
            for line in lines
            if line['split'] == split and marked[line['question_id']] in marks
        ]
        accuracy = 100 * np.mean(hits)
        assert len(hits) == expected[part]
        assert parts[part]['rows'][title]['Avg'] == pytest.approx(accuracy)
        row = title if part == 'test' else f'{title}: {part}'
        assert written[row]['Avg'] == pytest.approx(accuracy, abs=0.005)
