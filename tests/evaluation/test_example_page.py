import io
import time

import numpy as np
import pytest
from PIL import Image

from amuse_jax.evaluation import example_page
from amuse_jax.evaluation.page import canvas
from amuse_jax.music_avqa import vocabulary
from tests.evaluation.page.evidence import STREAMS, make_evidence

IMPORTANCE = dict(zip(STREAMS, (0.5, 0.3, 0.2)))


def probabilities(**given):
    result = np.zeros(42)
    for name, value in given.items():
        result[vocabulary.ANSWERS.index(name)] = value
    return result


def texts(figure):
    labels = [label for axes in figure.axes for label in axes.get_yticklabels()]
    inside = [text for axes in figure.axes for text in axes.texts]
    return [text.get_text() for text in (*figure.texts, *labels, *inside)]


def pixels(file):
    with Image.open(file) as image:
        return np.asarray(image.convert('RGB'))


@pytest.mark.parametrize(
    'evidence',
    [
        make_evidence(),
        make_evidence(3),
        make_evidence(1, (16, 9), time_weights=None, region_weights=None),
        make_evidence(segment_mask=np.zeros(10, bool)),
    ],
)
@pytest.mark.filterwarnings('error')
def test_a_page_is_a_picture_as_wide_as_a_screen(tmp_path, evidence):
    path = tmp_path / 'new/p.png'
    example_page.draw(evidence, 'Which?', probabilities(yes=1), IMPORTANCE, 'yes', path)
    page = pixels(path)
    assert page.shape[1] == example_page.WIDTH and 400 < page.shape[0] < 1400
    assert len(np.unique(page.reshape(-1, 3), axis=0)) > 1000


@pytest.mark.filterwarnings('error')
def test_a_page_goes_to_an_open_file_and_takes_any_question():
    file = io.BytesIO()
    question = r'Is $\frac{a}$ <b>louder</b> than \sum_$ in the video' + '\uff1f' * 300
    example_page.draw(make_evidence(), question, probabilities(no=1), IMPORTANCE, None, file)
    assert file.getvalue().startswith(b'\x89PNG')


def test_a_page_is_drawn_quickly():
    """The limit is generous, for machines with other work; on a quiet core it takes 0.4 s."""
    example_page.draw(  # fonts are loaded once
        make_evidence(), 'Which?', probabilities(yes=1), IMPORTANCE, 'yes', io.BytesIO()
    )
    start = time.process_time()
    example_page.draw(
        make_evidence(), 'Which?', probabilities(yes=1), IMPORTANCE, 'yes', io.BytesIO()
    )
    assert time.process_time() - start < 3


def test_the_parts_are_figures_of_their_own():
    video = texts(example_page.video_figure(make_evidence(), IMPORTANCE))
    assert {'cello', 'tempo changes', '10 % of attention', '57 s'} <= set(video)
    importance = texts(example_page.importance_figure(IMPORTANCE))
    assert {'visual', 'audio', 'regions', '50 %', '30 %', '20 %'} <= set(importance)
    answers = texts(example_page.answers_figure(probabilities(yes=0.7, no=0.3), None))
    assert {'yes', 'no', '70 %', '30 %'} <= set(answers)


@pytest.mark.parametrize('evidence', [make_evidence(), make_evidence(3), make_evidence(1, (16, 9))])
def test_segments_stand_apart_inside_their_figure(evidence):
    width, height = example_page.video_figure(evidence, IMPORTANCE).bbox.size
    boxes = example_page.segment_boxes(evidence)
    assert len(boxes) == evidence.segments
    for kind in zip(*boxes):
        edges = [(b.left, b.top, b.left + b.width, b.top + b.height) for b in kind]
        assert all(
            0 <= x0 < x1 <= width + 0.1 and 0 <= y0 < y1 < height for x0, y0, x1, y1 in edges
        )
        beside = [a[2] <= b[0] + 0.1 or a[3] <= b[1] for a, b in zip(edges, edges[1:])]
        assert all(beside)


def test_a_segments_box_holds_its_frame():
    frames = np.zeros((4, 8, 8, 3), np.uint8)
    frames[2] = (250, 20, 30)
    evidence = make_evidence(4, frames=frames, classes=np.full((4, 2), -1))
    file = io.BytesIO()
    canvas.save(example_page.video_figure(evidence, IMPORTANCE), file)
    page = pixels(file)
    reds = []
    for frame, _ in example_page.segment_boxes(evidence):
        x, y = round(frame.left + frame.width / 2), round(frame.top + frame.height / 2)
        reds.append(page[y, x, 0] > 200 and page[y, x, 1] < 60)
    assert reds == [False, False, True, False]
