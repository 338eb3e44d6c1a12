"""The forms of questions that the page offers."""

import pytest

from amuse_jax.ask import familiar
from amuse_jax.data.tokenizer import QuestionTokenizer
from amuse_jax.music_avqa import rows, vocabulary
from amuse_jax.serve import forms
from tests.training.conftest import tiny_config


def test_all_forms_are_offered():
    labels, offered = zip(*forms.choices())
    assert list(offered) == list(vocabulary.TEMPLATES) and len(set(labels)) == len(labels)
    assert 'Where is the [loudness] instrument?' in labels
    assert not any('<' in label or '\uff1f' in label or label.endswith(' ') for label in labels)


@pytest.mark.parametrize('form', vocabulary.TEMPLATES)
def test_a_filled_form_is_the_question_of_the_data_set(form):
    values = forms.first_values(form)
    assert len(values) == len(forms.blanks(form)) <= forms.MOST_BLANKS
    assert all(value in dict(map(reversed, choices)) for value, (_, choices) in
               zip(values, forms.blanks(form)))  # fmt: skip
    asked, original = forms.fill(form, values), rows.fill(form, values)
    tokenizer = QuestionTokenizer(tiny_config().model.text)
    ids, _ = tokenizer.encode([asked, original])
    assert (ids[0] == ids[1]).all()
    assert familiar.form_of(asked) == familiar.form_of(original)


def test_blanks_of_one_kind_begin_with_different_values():
    form = 'Is the <Object> on the <LR> louder than the <Object> on the <LR>?'
    filled = forms.fill(form, forms.first_values(form))
    assert filled == 'Is the accordion on the left louder than the acoustic guitar on the right?'
