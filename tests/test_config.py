import pytest

from amuse_jax import config


def test_steps_are_a_first_one_and_an_end():
    assert list(config.parse_steps('10:13')) == [10, 11, 12]
    assert not config.parse_steps('')


@pytest.mark.parametrize('text', ['10', '13:10', '0:2', '-1:2', '3:3', 'a:b', '1:2:3'])
def test_other_texts_are_refused(text):
    with pytest.raises(ValueError, match='expected .* or FIRST:END'):
        config.parse_steps(text)
