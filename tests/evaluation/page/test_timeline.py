import numpy as np

from amuse_jax.evaluation.page import canvas, timeline
from amuse_jax.music_avqa import vocabulary
from tests.evaluation.page.evidence import CELLO, make_evidence

NAMES = [name.replace('_', ' ') for name in vocabulary.INSTRUMENTS]


def drawn(evidence, attention):
    height = timeline.least_height(evidence)
    figure = canvas.new_figure(800, height)
    colours = canvas.class_colours(NAMES)
    timeline.draw(figure, canvas.Box(0, 0, 800, height), evidence, colours, attention)
    return figure.axes


def labels(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def test_a_source_has_a_line_with_its_name_that_is_visible_while_it_sounds():
    (axes,) = drawn(make_evidence(time_weights=None), {})
    assert labels(axes) == ['cello', 'tempo changes']
    shades = [patch.get_facecolor()[3] for patch in axes.patches]
    assert shades == [1] * 5 + [0] * 5
    assert [patch.get_x() for patch in axes.patches] == [6 * index for index in range(10)]


def test_a_tempo_change_is_marked_where_its_segment_ends():
    (axes,) = drawn(make_evidence(time_weights=None), {})
    marks = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == 'D']
    assert marks == [12]  # from segment 1, which ends at 12 s, to the next


def test_only_the_strongest_of_many_sources_have_lines():
    sources = np.tile(np.linspace(0, 1, 22, dtype=np.float32), (10, 1))
    evidence = make_evidence(sources=sources)
    assert timeline.audible(evidence) == list(range(22 - timeline.MOST_SOURCES, 22))


def test_silence_has_a_line_of_its_own():
    evidence = make_evidence(sources=np.zeros((10, 22), np.float32), time_weights=None)
    assert labels(drawn(evidence, {})[0]) == ['no source', 'tempo changes']


def test_what_sounds_after_the_end_has_no_line():
    sources = np.zeros((10, 22), np.float32)
    sources[8, CELLO] = 1
    evidence = make_evidence(sources=sources, segment_mask=np.arange(10) < 8)
    assert timeline.source_names(evidence) == []


def test_bars_of_attention_are_stacked_and_have_the_colours_of_their_streams():
    shares = {'visual': np.linspace(0, 0.09, 10), 'audio': np.full(10, 0.05)}
    axes = drawn(make_evidence(), shares)[1]
    visual, audio = axes.patches[:10], axes.patches[10:]
    np.testing.assert_allclose([bar.get_height() for bar in visual], shares['visual'])
    np.testing.assert_allclose([bar.get_y() for bar in audio], shares['visual'])
    assert len({bar.get_facecolor() for bar in visual}) == 1
    assert visual[0].get_facecolor() != audio[0].get_facecolor()
    assert axes.get_ylim()[1] > 0.14
