import json
import re
import shutil

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from amuse_jax.data.prepared import Prepared
from amuse_jax.errors import StageError
from amuse_jax.evaluation import other_data, report, tables
from amuse_jax.evaluation import stage as evaluate
from tests.evaluation.read_back import from_csv


def read_lines(folder):
    return [json.loads(line) for line in (folder / 'predictions.jsonl').open()]


def read_scores(folder):
    json.loads((folder / 'scores.json').read_text(), parse_constant=pytest.fail)  # NaN is no JSON
    return tables.read_scores(folder)


@pytest.fixture(scope='module')
def evaluated(finished, tmp_path_factory):
    """Run the evaluate stage; return (config, inputs, the stage's folder, its summary)."""
    config, inputs = finished
    folder = tmp_path_factory.mktemp('evaluate')
    return config, inputs, folder, evaluate.run(config, folder, inputs)


@pytest.fixture(scope='module')
def leaking(finished, tmp_path_factory):
    """Change the questions of `finished`.

    One test question is also a train question, and every test question has two rephrased ones, as
    in MUSIC-AVQA-R.
    """
    config, inputs = finished
    prepared = tmp_path_factory.mktemp('leaking') / 'prepare'
    shutil.copytree(inputs['prepare'], prepared)
    rows = json.loads((prepared / 'questions.json').read_text())
    leaked = next(row for row in rows if row['split'] == 'train')
    test = [row for row in rows if row['split'] == 'test'] + [leaked | {'split': 'test'}]
    rephrased = [
        row | {'split': 'rephrased', 'frequency': mark, 'text': words, 'template': words}
        for row, mark in zip(test, ('head', 'tail', 'head', 'tail'))
        for words in ('Say, where is it?', 'So who plays where?')
    ]
    others = [row for row in rows if row['split'] != 'test']
    (prepared / 'questions.json').write_text(json.dumps(others + test + rephrased))
    return config.copy_and_resolve_references(), inputs | {'prepare': prepared}


def test_every_test_question_is_answered_and_counted(evaluated):
    _, inputs, folder, summary = evaluated
    lines, scores = read_lines(folder), read_scores(folder)
    questions = evaluate.read_questions(inputs['prepare'], 'test')
    assert len(lines) == len(questions) == 3
    hits = [line['predicted'] == line['answer'] for line in lines]
    for method, row in scores['parts']['test']['rows'].items():
        assert row == pytest.approx(summary[method], nan_ok=True)
    assert summary['Amuse']['Avg'] == pytest.approx(100 * np.mean(hits))
    assert scores['parts'].keys() == {'test'}
    low, high = scores['parts']['test']['intervals']['Amuse']['Avg']
    assert low <= summary['Amuse']['Avg'] <= high
    assert scores['test_set'] == {'name': '', 'published': '', 'questions': 3, 'of': 3}


def test_the_scores_name_all_settings_of_earlier_stages(evaluated):
    config, _, folder, _ = evaluated
    settings = read_scores(folder)['model']['settings']
    assert settings['data.annotations'] == 'plain' and settings['evaluate.leaked'] == 'refuse'
    for section in ('audio', 'rhythm', 'sources', 'rois', 'pretrain', 'model'):
        assert settings[section] == json.loads(config[section].to_json())
    train = json.loads(config.train.to_json())
    del train['cache']  # it changes no result
    assert {name: settings[f'train.{name}'] for name in train} == train


def test_files_of_the_stage(evaluated):
    _, _, folder, summary = evaluated
    written = from_csv((folder / 'table.csv').read_text())
    assert written['Amuse']['Avg'] == pytest.approx(summary['Amuse']['Avg'], abs=0.005)
    page = (folder / 'report.md').read_text()
    assert page.startswith('# Music performance question answering: 3 test questions\n\n')
    assert 'published' not in page and 'Diao' not in page and 'Parts of the test' not in page
    templates = page[page.index('## Accuracy per template') : page.index('## Examples')]
    header, _, *rows = [line for line in templates.splitlines() if line.startswith('|')]
    columns = [cell.strip() for cell in header.strip('|').split('|')]
    assert columns == ['template', 'questions', evaluate.AMUSE, *evaluate.BASELINES]
    templates_of_lines = [line['template'].strip() for line in read_lines(folder)]
    for cells in ([cell.strip() for cell in row.strip('|').split('|')] for row in rows):
        assert int(cells[1]) == templates_of_lines.count(cells[0]) > 0
        assert all(0 <= float(cell) <= 100 for cell in cells[2:])
    assert len(rows) == len(set(templates_of_lines))
    assert (folder / 'templates.csv').exists() and (folder / 'templates.txt').exists()
    for name in ('accuracy', 'importance', 'training', 'templates'):
        assert (folder / f'figures/{name}.png').stat().st_size > 1000
    assert len(list((folder / 'examples').iterdir())) == 3  # a page for each question
    assert (folder / 'report.html').read_text().startswith('<!DOCTYPE html>')
    shown = report.format_summary(folder)
    assert shown.strip().splitlines()[2].startswith('Amuse ') and str(folder) in shown


def test_a_model_is_not_evaluated_on_its_training_questions(leaking, tmp_path):
    config, inputs = leaking
    with pytest.raises(StageError, match='^1 of the 4 test questions .* trained or validated on'):
        evaluate.run(config, tmp_path, inputs)
    assert not list(tmp_path.iterdir())


def test_leaked_questions_and_rare_and_frequent_answers_are_separate_parts(
    leaking, tmp_path, monkeypatch
):
    config, inputs = leaking
    config.evaluate.leaked = 'apart'
    fit, fitted = LogisticRegression.fit, []
    monkeypatch.setattr(
        LogisticRegression, 'fit', lambda *given: fitted.append(given) or fit(*given)
    )
    evaluate.run(config, tmp_path, inputs)
    assert len(fitted) == 1  # once for both splits
    parts = read_scores(tmp_path)['parts']
    # Every question is rephrased twice; rephrased questions have the original question's template.
    frequent = [parts[name]['rows']['most frequent answer']['Avg'] for name in other_data.SPLITS]
    assert frequent[0] == frequent[1]
    assert {name: part['questions']['Avg'] for name, part in parts.items()} == {
        'test': 3,
        'test, seen': 1,
        'rephrased': 6,
        'rephrased, head': 4,
        'rephrased, tail': 2,
        'rephrased, seen': 2,
    }
    lines = read_lines(tmp_path)
    assert len(lines) == 12
    known = [line for line in lines if line['video_id'] == 'video0']
    for name, split in (('test, seen', 'test'), ('rephrased, seen', 'rephrased')):
        hits = [line['predicted'] == line['answer'] for line in known if line['split'] == split]
        assert parts[name]['rows']['Amuse']['Avg'] == pytest.approx(100 * np.mean(hits))
    head, tail, both = (
        parts[name]['rows']['Amuse']['Avg']
        for name in ('rephrased, head', 'rephrased, tail', 'rephrased')
    )
    assert both == pytest.approx((4 * head + 2 * tail) / 6)
    page = (tmp_path / 'report.md').read_text()
    assert 'on 1 of the test questions' in page
    written = from_csv((tmp_path / 'table.csv').read_text())
    texts = [page, *((tmp_path / f'table.{ending}').read_text() for ending in ('md', 'txt'))]
    for name in ('rephrased', 'rephrased, head', 'rephrased, tail', 'test, seen'):
        for method in (evaluate.AMUSE, *evaluate.BASELINES):
            value = parts[name]['rows'][method]['Avg']
            assert written[f'{method}: {name}']['Avg'] == pytest.approx(value, abs=0.005)
            for text in texts:
                (line,) = re.findall(rf'^\W*{method}: {name} +(?!,).*', text, re.M)
                assert line.rstrip(' |').endswith(f' {value:.2f}')


def test_another_data_set_gets_answers_of_the_same_model(evaluated, tmp_path):
    """The run's own records, used as another data set's, give exactly the same answers."""
    config, inputs, folder, summary = evaluated
    inputs = inputs | {
        'test_prepare': inputs['prepare'],
        'test_rois': inputs['rois'],
        'test_features': inputs['pretrain'],
    }
    rows = evaluate.run(config, tmp_path, inputs)
    assert rows['Amuse'] == pytest.approx(summary['Amuse'], nan_ok=True)
    assert read_lines(tmp_path) == read_lines(folder)
    assert other_data.find_test_data(inputs).labels == inputs['pretrain'] / 'features'


def test_an_answer_that_is_not_finite_stops_the_stage_by_name(finished, tmp_path):
    """Its most probable answer would be an arbitrary one, and might count as right."""
    config, inputs = finished
    shutil.copytree(inputs['pretrain'], tmp_path / 'pretrain')
    test = min(Prepared(inputs['prepare']).records_of('test'))
    path = tmp_path / 'pretrain/features/source_audio.npy'
    array = np.load(path)
    array[test] = np.nan
    np.save(path, array)
    with pytest.raises(StageError, match=rf'no answer about the video video{test} .*not finite'):
        evaluate.run(config, tmp_path / 'out', inputs | {'pretrain': tmp_path / 'pretrain'})
