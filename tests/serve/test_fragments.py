"""The HTML of an answer."""

import re

import pytest

from amuse_jax.evaluation import example_page
from amuse_jax.serve import fragments

QUESTION = '<script>alert(1)</script>" onload="x" Is there a voiceover?'


@pytest.fixture(scope='module')
def answer(model, films):
    return model.watch(films[0]).ask(QUESTION)


@pytest.mark.filterwarnings('ignore::amuse_jax.ask.video.UnfamiliarQuestion')
def test_an_answer_is_escaped_and_has_its_charts(answer):
    html = fragments.answer(answer)
    assert '<script' not in html and 'onload="' not in html and '&lt;script&gt;' in html
    assert re.findall('<img class="([a-z]+)"', html) == ['probabilities', 'importance']
    streams = re.search('alt="Importance of each stream: ([^"]*)"', html)[1]
    assert len(streams.split(', ')) == len(answer.importance)
    assert all(name.replace('_', ' ') in streams for name in answer.importance)


def test_each_segment_can_be_played(answer):
    html = fragments.evidence(answer)
    buttons = re.findall(r'class="(frame|segment)" data-seconds="([\d.]+)"', html)
    assert buttons == [
        ('frame', '3.0'), ('segment', '0.0'), ('frame', '9.0'), ('segment', '6.0'),
        ('frame', '15.0'), ('segment', '12.0'),
    ]  # fmt: skip
    assert 'Play from 6 s: 6 to 12 s, ' in html
    left, width, seconds = map(
        float, re.search('data-left="(.*?)" data-width="(.*?)" data-seconds="(.*?)"', html).groups()
    )
    assert seconds == 18 and 0 < left < left + width < 100
    boxes = [box for _, box in example_page.segment_boxes(answer.evidence)]
    assert left == pytest.approx(100 * boxes[0].left / example_page.WIDTH, abs=0.01)


def test_steps_up_to_the_last_one_measured_are_done():
    def done(times):
        return re.findall('class="done">([a-z]+)', fragments.steps(times))

    assert done({}) == []
    assert done({'reading': 0.1, 'listening': 0.2}) == ['reading', 'listening']
    assert done({'answering': 1.0}) == list(fragments.STEPS)


def test_one_question_makes_no_table():
    rows = [('<b>', 'yes', 0.5), ('Where?', 'more than ten', 0.001)]
    assert fragments.asked(rows[:1]) == ''
    table = fragments.asked(rows)
    assert '&lt;b&gt;' in table and '50 %' in table and '&lt;1 %' in table
