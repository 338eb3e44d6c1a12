import pytest

from amuse_jax.evaluation import quality
from tests.evaluation.summaries import SUMMARIES


def by_name(table):
    return {row[0]: list(row[1:]) for row in table.rows}


def test_annotators_have_precision_and_recall_where_truth_is_known():
    table = quality.annotators(SUMMARIES['annotate'])
    assert by_name(table) == {
        'tempo changes': ['1,498', '293', '241', '48.4', '82.2'],
        'sources that sound': ['2,059', '2,061', '2,059', '100.0', '99.9'],
    }
    assert 'precision, %' in table.columns and '165 videos' in table.notes[0]
    assert {len(row) for row in table.rows} == {len(table.columns)}


def test_annotations_without_a_truth_are_counted_only():
    summary = {'records': 30, 'stems': 'tags', 'segments_with_rhythm_change': 12}
    table = quality.annotators(summary)
    assert by_name(table) == {'tempo changes': ['12', '-', '-', '-', '-']}
    assert 'is not known' in table.notes[0]
    assert {len(row) for row in table.rows} == {len(table.columns)}


def test_the_detector_has_a_row_for_each_class():
    table = quality.detector(SUMMARIES['rois'])
    assert list(by_name(table)) == [
        'all classes', 'acoustic guitar', 'bagpipe', 'bassoon', 'player',
    ]  # fmt: skip
    assert by_name(table)['acoustic guitar'] == ['50.8', '47']
    assert by_name(table)['bagpipe'] == ['-', '192']  # no box of it in the val split
    assert by_name(table)['bassoon'] == ['0.0', '0']  # never found


@pytest.mark.parametrize('trained_on', [0, 366])
def test_a_detector_that_was_not_measured(trained_on):
    summary = SUMMARIES['rois'] | {
        'map50': None, 'map50_of_class': {}, 'trained_on': trained_on, 'unreadable': {'a': 'b'},
    }  # fmt: skip
    table = quality.detector(summary)
    assert by_name(table)['all classes'] == ['-', '4,500']
    text = ' '.join(table.notes)
    assert ('trained on 366 pictures' in text) == (trained_on > 0)
    assert ('taken from given weights' in text) == (trained_on == 0)
    assert '1 videos could not be read' in text


def test_the_encoder_has_a_row_for_each_split():
    table = quality.encoder(SUMMARIES['pretrain'])
    assert by_name(table) == {'train': ['0.090', '0.412', '92.8'], 'val': ['0.178', '0.830', '-']}


def test_tables_of_all_stages_are_markdown():
    annotators, encoder, detector = quality.make_tables(SUMMARIES)
    lines = annotators.as_markdown().splitlines()
    assert lines[2].startswith('| tempo changes') and all(line[0] == '|' for line in lines)
    assert len(lines) == 2 + len(annotators.rows)
    assert [t.title for t in (detector, encoder)] == ['Detector', 'Universal encoder']


def test_a_stage_of_an_earlier_version_has_no_table():
    tables = quality.make_tables(SUMMARIES | {'annotate': {}, 'rois': {'regions': 3}})
    assert [table.title for table in tables] == ['Universal encoder']
    assert len(quality.make_tables(SUMMARIES)) == 3
