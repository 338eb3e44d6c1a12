import numpy as np

from amuse_jax.evaluation.page import bars, canvas
from amuse_jax.music_avqa import vocabulary


def probabilities(**given):
    result = np.zeros(42)
    for name, value in given.items():
        result[vocabulary.ANSWERS.index(name)] = value
    return result


def drawn(given, answer):
    """The lines of the bars, from top to bottom: name, colour and what is written."""
    height = bars.answers_height(given, answer)
    figure = canvas.new_figure(400, height)
    bars.draw_answers(figure, canvas.Box(0, 0, 400, height), given, answer)
    (axes,) = figure.axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    colours = [canvas_colour(patch) for patch in axes.patches[len(names) :]]
    return list(zip(names, colours, [text.get_text() for text in axes.texts], strict=True))


def canvas_colour(patch):
    return '#' + ''.join(f'{round(255 * part):02x}' for part in patch.get_facecolor()[:3])


def test_the_true_answer_is_among_the_bars_even_if_it_is_improbable():
    given = probabilities(yes=0.7, no=0.298, xylophone=0.002)
    assert bars.best_answers(given, None)[:3] == ['yes', 'no', 'xylophone']
    assert bars.best_answers(given, 'violin')[-1] == 'violin'
    assert len(bars.best_answers(given, 'yes')) == bars.MOST_ANSWERS


def test_a_wrong_answer_is_red_and_the_true_one_green():
    lines = drawn(probabilities(yes=0.7, no=0.298, acoustic_guitar=0.002), 'acoustic_guitar')
    assert lines[:3] == [
        ('yes', canvas.WRONG, '70 %'),
        ('no', canvas.OTHER, '30 %'),
        ('acoustic guitar', canvas.RIGHT, '<1 %, true answer'),
    ]
    assert drawn(probabilities(yes=1), 'yes')[0] == ('yes', canvas.RIGHT, '100 %, true answer')


def test_an_answer_whose_truth_is_not_known_is_neither():
    colours = {colour for _, colour, _ in drawn(probabilities(yes=0.7, no=0.3), None)}
    assert not colours & {canvas.RIGHT, canvas.WRONG}
