import dataclasses

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from amuse_jax.evaluation.page import canvas, frames
from tests.evaluation.page.evidence import make_evidence

WIDTH = 1232


def drawn(evidence, attention=None):
    """The axes with all frames."""
    grid = frames.arrange(evidence.segments, evidence.shape, WIDTH)
    figure = canvas.new_figure(WIDTH, grid.total_height)
    box = canvas.Box(0, 0, WIDTH, grid.total_height)
    frames.draw(figure, box, grid, evidence, {'violin': '#1d4ed8'}, attention)
    return figure.axes[0]


def boxes(axes):
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


@pytest.mark.parametrize('shape', [(9, 16), (16, 9), (48, 64), (1, 1), (1, 3)])
@pytest.mark.parametrize('segments', [1, 3, 7, 10])
def test_frames_have_the_shape_of_the_video_and_are_large(shape, segments):
    grid = frames.arrange(segments, shape, WIDTH)
    assert grid.height / grid.width == pytest.approx(shape[0] / shape[1])
    assert grid.width * grid.height >= frames.MIN_AREA
    assert grid.columns * grid.rows >= segments > grid.columns * (grid.rows - 1)
    assert grid.columns * (grid.width + frames.GAP) <= WIDTH + frames.GAP + 1e-6
    images = drawn(make_evidence(segments, shape)).images
    assert len(images) == segments
    for image in images:
        left, right, bottom, top = image.get_extent()
        assert 0 <= left < right <= WIDTH + 1e-6 and 0 <= top < bottom <= grid.total_height
        assert (bottom - top) / (right - left) == pytest.approx(shape[0] / shape[1])


def test_frames_after_the_end_are_not_drawn():
    assert len(drawn(make_evidence(segment_mask=np.arange(10) < 4)).images) == 4


def test_a_region_with_more_attention_has_a_thicker_box_and_its_share():
    evidence = make_evidence(2)
    weights = np.array([[0.6, 0.0], [0.2, 0.0]], np.float32)
    axes = drawn(dataclasses.replace(evidence, region_weights=weights), np.array([0.75, 0.25]))
    first, second = boxes(axes)  # players, which have no attention, have no box
    assert first.get_linewidth() > second.get_linewidth()
    assert first.get_alpha() > second.get_alpha()
    texts = [text.get_text() for text in axes.texts]
    assert 'violin 60 %' in texts and 'violin 20 %' in texts
    assert '75 % of attention' in texts and '3 s' in texts and '9 s' in texts


def test_a_player_with_much_attention_has_a_box():
    weights = np.array([[0.1, 0.6], [0.1, 0.2]], np.float32)
    axes = drawn(make_evidence(2, region_weights=weights))
    assert len(boxes(axes)) == 3
    # Both boxes of a frame are the same, and only the instrument's name is written.
    assert not any('player' in text.get_text() for text in axes.texts)


@pytest.mark.parametrize('weights', [None, np.zeros((2, 0))])
def test_without_attention_instruments_have_boxes_and_names_alone(weights):
    axes = drawn(make_evidence(2, region_weights=weights))
    assert len(boxes(axes)) == 2
    assert [text.get_text() for text in axes.texts] == ['3 s', 'violin', '9 s', 'violin']
