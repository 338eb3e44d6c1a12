import pytest

from amuse_jax.evaluation.page import canvas


@pytest.mark.parametrize(
    ('share', 'text'),
    [(0, '0 %'), (0.001, '<1 %'), (0.0099, '<1 %'), (0.01, '1 %'), (0.256, '26 %'), (1, '100 %')],
)
def test_shares_are_in_whole_per_cent(share, text):
    assert canvas.percent(share) == text


def test_long_text_is_cut_and_full_width_signs_become_usual_ones():
    assert canvas.wrap('How many sounding violin\uff1f', 40, 2) == ['How many sounding violin?']
    lines = canvas.wrap('word ' * 100, 20, 3)
    assert len(lines) == 3 and lines[-1].endswith(' ...')
    assert all(len(line) <= 20 for line in canvas.wrap('x' * 100, 20, 9))
    assert canvas.wrap('', 20, 3) == ['']


def test_a_name_has_one_colour():
    names = ['cello', 'violin', 'cello', *map(str, range(30))]
    colours = canvas.class_colours(names)
    assert len(colours) == 32 and colours['cello'] != colours['violin']
