import json

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
        'model': {'notes': list(notes)} if notes else {},
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
