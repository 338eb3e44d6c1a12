import csv
import io
import math

import pytest

from amuse_jax.evaluation import tables
from amuse_jax.music_avqa import Question, vocabulary
from tests.evaluation.read_back import from_csv


def question(modality, kind, template='Is there a voiceover?', answer='yes', text='x'):
    return Question('1', 'v', 'v', 'test', modality, kind, template, (), text, answer)


def test_averages_count_questions_not_types():
    # One system's published numbers: 84.07 % of 1017 and 64.65 % of 594 questions give 76.91 %.
    questions = [question('Audio', 'Counting')] * 1017 + [question('Audio', 'Comparative')] * 594
    is_correct = [i < 855 for i in range(1017)] + [i < 384 for i in range(594)]
    row = tables.accuracies(questions, is_correct)
    assert row['A Count'] == pytest.approx(84.07, abs=0.01)
    assert row['A Comp'] == pytest.approx(64.65, abs=0.01)
    assert row['A Avg'] == row['Avg'] == pytest.approx(76.91, abs=0.01)
    assert math.isnan(row['V Avg'])


def test_every_type_has_its_column():
    assert len(tables.TYPE_COLUMNS) == 9
    for modality, kind in vocabulary.TYPES:
        row = tables.accuracies([question(modality, kind)], [True])
        assert sum(not math.isnan(row[c]) for c in tables.TYPE_COLUMNS) == 1
        assert row['Avg'] == 100


def test_the_three_formats_have_the_same_numbers():
    questions = [question(*kind) for kind in vocabulary.TYPES for _ in range(3)]
    rows = {'ours': tables.accuracies(questions, [i % 2 == 0 for i in range(27)])}
    cells = list(csv.reader(io.StringIO(tables.as_csv(rows))))
    assert cells[0] == ['method', *tables.COLUMNS]
    for value in cells[1][1:]:
        assert f'{float(value):.2f}' in tables.as_text(rows)
        assert f'{float(value):.2f}' in tables.as_markdown(rows)


def test_a_csv_table_is_read_back_to_two_decimals():
    questions = [question('Audio', 'Counting')] * 3 + [question('Visual', 'Location')]
    rows = {'a, "b"': tables.accuracies(questions, [True, False, False, True])}
    read = from_csv(tables.as_csv(rows))
    assert list(read) == list(rows)
    for column, value in rows['a, "b"'].items():
        assert read['a, "b"'][column] == pytest.approx(value, abs=0.005, nan_ok=True)
    assert math.isnan(read['a, "b"']['AV Avg'])


def test_margins_follow_their_row_and_nan_is_a_dash():
    questions = [question('Audio', 'Counting')] * 4
    rows = {'ours': tables.accuracies(questions, [True] * 3 + [False])}
    rows['other'] = rows['ours']
    margins = {'ours': {c: 1.26 if v == v else math.nan for c, v in rows['ours'].items()}}
    displayed = tables.with_margins(rows, margins, '±')
    assert list(displayed) == ['ours', 'ours, ±', 'other']
    lines = tables.as_text(displayed).splitlines()[2:]
    assert lines[0].split() == ['ours', '75.00', '-', '75.00', *['-'] * 9, '75.00']
    assert lines[1].split() == ['ours,', '±', '±1.3', '-', '±1.3', *['-'] * 9, '±1.3']


def test_per_template_has_a_row_for_every_template_that_occurs():
    questions = [
        question('Audio-Visual', 'Existential'),
        question('Audio-Visual', 'Existential'),
        question('Visual', 'Location', 'Where is the performance?'),
        question('Visual', 'Location', 'Where do they play?'),
        question('Visual', 'Counting', 'How many pianos are red?'),
    ]
    hits = {'a': [True, False, True, True, False], 'b': [False, False, False, True, True]}
    rows = tables.per_template(questions, hits)
    assert [(r['template'], r['questions'], r['a'], r['b']) for r in rows] == [
        ('Where is the performance?', 1, 100, 0),
        ('Is there a voiceover?', 2, 50, 0),
        ('other templates', 2, 50, 100),
    ]


def test_templates_are_written_in_three_formats(tmp_path):
    template = 'How many sounding <Object> in the video\uff1f'
    questions = [question('Audio-Visual', 'Counting', template)] * 3
    questions.append(question('Audio-Visual', 'Counting', 'How many, "really"?'))
    rows = tables.per_template(questions, {'Amuse': [True, True, False, True]})
    tables.write_templates(tmp_path, rows)
    text, page = ((tmp_path / f'templates.{ending}').read_text() for ending in ('txt', 'md'))
    written = list(csv.reader((tmp_path / 'templates.csv').open()))
    assert written[0] == ['template', 'questions', 'Amuse']
    assert written[1:] == [[template, '3', '66.67'], ['other templates', '1', '100.00']]
    assert [line.split()[-2:] for line in text.splitlines()[2:]] == [['3', '66.7'], ['1', '100.0']]
    assert template in text
    assert 'sounding \\<Object> in' in page  # otherwise Markdown treats it as a tag
