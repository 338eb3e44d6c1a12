import re
import urllib.parse

import pytest

from amuse_jax.evaluation import stage as evaluate
from amuse_jax.evaluation import test_sets
from tests.evaluation.read_back import from_csv
from tests.evaluation.small_report import make_example, make_part
from tests.evaluation.small_report import write as write_small

V1 = test_sets.KNOWN[0]
EXAMPLES = ('00--7cbk_#02.png', '01-my video (1) %.png')


def write(folder, parts, examples=EXAMPLES):
    """The report of some parts; returns its scores."""
    return write_small(folder, parts, [make_example(folder, name) for name in examples])


def test_published_rows_stand_beside_the_same_test_set(tmp_path):
    scores = write(tmp_path, {'test': make_part(V1.counts)})
    assert scores['test_set'] == {
        'name': 'MUSIC-AVQA v1 (json_update)', 'published': 'v1', 'questions': 9129, 'of': 9129,
    }  # fmt: skip
    text = (tmp_path / 'table.txt').read_text()
    names = [line.split('  ')[0] for line in text.splitlines()[2:13]]
    assert names[:4] == ['Amuse', 'Amuse, ± 95 %', *(evaluate.AMUSE, *evaluate.BASELINES)[1:]]
    assert names[4] == 'AVST (Li et al., 2022)' and names[10] == 'Amuse (Diao et al., 2024) [f]'
    assert '84.61' in text and '83.58*' in text and '*: an average' in text
    assert '9,129 of its 9,129 questions' in text
    notes = text[text.index('Accuracy in per cent') :].strip()
    assert notes in (tmp_path / 'table.md').read_text()  # what * and ± mean
    page = (tmp_path / 'report.md').read_text()
    for name in (
        *(evaluate.AMUSE, *evaluate.BASELINES),
        'AVST (Li et al., 2022)',
        'Amuse (Diao et al., 2024) [f]',
    ):
        assert f'| {name} ' in page[: page.index('accuracy.png')]
    written = from_csv((tmp_path / 'table.csv').read_text())
    assert written['Amuse (Diao et al., 2024), types only']['Avg'] == 83.52
    test = scores['parts']['test']
    low, high = test['intervals']['Amuse']['V Avg']
    assert written['Amuse, 95 % from']['V Avg'] == pytest.approx(low, abs=0.005)
    assert written['Amuse, 95 % to']['V Avg'] == pytest.approx(high, abs=0.005)
    assert 1 < high - low < 6


def test_verdicts_stand_below_the_table_and_later_systems_in_a_table_of_their_own(tmp_path):
    write(tmp_path, {'test': make_part(V1.counts)})
    for name in ('table.txt', 'table.md', 'report.md', 'report.html'):
        text = (tmp_path / name).read_text()
        assert '[b] Not comparable: it is a result on other questions. Validation answers' in text
    text = (tmp_path / 'table.txt').read_text()
    (line,) = [line for line in text.splitlines() if line.startswith('QA-TIGER (CVPR 2025) ')]
    cells = re.split(r' {2,}', line.strip())
    assert cells[1:5] == ['78.58', '85.14', '73.74', '77.62']
    assert cells[5:] == ['averages agree', 'no', 'yes', 'its paper']
    note = 'table.md lists 41 other published results'
    assert note in (tmp_path / 'report.md').read_text() and note not in text


def test_a_set_of_ones_own_stands_alone_and_parts_are_told(tmp_path):
    small = make_part([20] * 9, videos=30)
    parts = {'test': small, 'test, unseen': make_part([19] * 9, videos=30)}
    write(tmp_path, parts)
    text = (tmp_path / 'table.txt').read_text()
    assert 'Diao' not in text and 'Test set' not in text
    assert "validated on 9 of the test questions; 'test, unseen' leaves them out" in text
    page = (tmp_path / 'report.md').read_text()
    assert page.index('| Amuse ') < page.index('accuracy.png') < page.index('## Parts of the test')
    assert '| Amuse: test, unseen' in page and '| question words: test, unseen' in page


def test_a_report_without_examples(tmp_path):
    write(tmp_path, {'test': make_part(V1.counts)}, examples=())  # evaluate.examples is 0
    page = (tmp_path / 'report.md').read_text()
    assert '## Examples' not in page and '{%' not in page and page.endswith('\n')


def test_examples_are_linked_whatever_their_videos_are_called(tmp_path):
    write(tmp_path, {'test': make_part([2] * 9, videos=3)})
    links = re.findall(r'\]\((examples/.*?)\) *\|', (tmp_path / 'report.md').read_text())
    assert not set('# ()') & set(''.join(links))
    for link, name in zip(links, EXAMPLES, strict=True):
        # As a browser resolves it: what stands behind '#' or '?' is no part of the path.
        path = urllib.parse.urlsplit(urllib.parse.urljoin((tmp_path / 'report.md').as_uri(), link))
        assert urllib.parse.unquote(path.path) == str(tmp_path / 'examples' / name)


def test_annotators_and_detector_are_tables_in_markdown(tmp_path):
    write(tmp_path, {'test': make_part([2] * 9, videos=3)})
    page = (tmp_path / 'report.md').read_text()
    quality = page[page.index('## Annotators and detector') : page.index('## Accuracy per')]
    assert '{' not in quality and '| tempo changes' in quality and '| acoustic guitar' in quality


def test_a_hostile_question_means_nothing_in_markdown(tmp_path):
    question = '<img src=x> | [a](b) `c` *d*\n# e'
    write_small(
        tmp_path,
        {'test': make_part([2] * 9, videos=3)},
        [make_example(tmp_path, 'a.png', question)],
    )
    page = (tmp_path / 'report.md').read_text()
    (row,) = [line for line in page.splitlines() if 'src=x' in line]
    assert r'[\<img src=x\> \| \[a\](b) \`c\` \*d\* # e](examples/a.png)' in row
