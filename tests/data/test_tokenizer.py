import itertools
import re

import numpy as np
import pytest
import tokenizers
import transformers
from ml_collections import ConfigDict

from amuse_jax import music_avqa
from amuse_jax.data import tokenizer
from amuse_jax.errors import StageError
from amuse_jax.music_avqa import vocabulary


def make(name='questions', max_words=20):
    return tokenizer.QuestionTokenizer(ConfigDict(dict(tokenizer=name, max_words=max_words)))


def every_question():
    for template in vocabulary.TEMPLATES:
        places = re.findall('<[^<>]+>', template)
        for values in itertools.product(*[vocabulary.PLACEHOLDERS[place] for place in places]):
            yield music_avqa.fill(template, values)


def test_every_possible_question_fits_into_20_tokens():
    texts = sorted(set(every_question()))
    assert len(texts) == 11468
    ids, mask = make().encode(texts)
    assert ids.dtype == np.int32 and ids.shape == mask.shape == (11468, 20)
    assert mask.sum(1).max() == 19  # with [CLS], [SEP] and '?'
    words = tokenizer.question_vocabulary()
    assert not (ids == words.index('[UNK]')).any()
    assert not any(words[index].startswith('##') for index in np.unique(ids))
    assert len(np.unique(ids, axis=0)) == 11468


def test_a_question_is_words_between_special_tokens():
    reader = make(max_words=9)
    ids, mask = reader.encode(['Is the acoustic_guitar louder\uff1f', 'is'])
    assert reader.to_tokens(ids[0]) == (
        ['[CLS]', 'is', 'the', 'acoustic', 'guitar', 'louder', '?', '[SEP]', '[PAD]']
    )
    assert mask.sum(1).tolist() == [8, 3]
    assert (ids[~mask] == reader.pad_id).all()


def test_unknown_words_are_split_into_pieces():
    reader = make()
    ids, mask = reader.encode(['Who plays violins?'])
    words = reader.to_tokens(ids[0, : mask.sum()])
    assert '[UNK]' not in words
    assert words[-4:] == ['violin', '##s', '?', '[SEP]']
    assert ''.join(words[1:4]) == 'w##h##o'


def test_a_long_question_is_truncated_before_its_last_special_token():
    reader = make(max_words=6)
    ids, mask = reader.encode(['How many musical instruments were heard throughout the video?'])
    assert mask.all() and reader.to_tokens(ids[0])[-1] == '[SEP]'


def test_names_are_encoded_without_special_tokens():
    reader = make()
    names = [*vocabulary.ANSWERS, 'player', 'person']
    ids, mask = reader.encode_names(names)
    assert ids.shape == mask.shape == (44, 3)
    found = [' '.join(reader.to_tokens(row[is_token])) for row, is_token in zip(ids, mask)]
    assert found == [name.replace('_', ' ') for name in names]


def test_the_vocabulary_is_fixed():
    words = tokenizer.question_vocabulary()
    assert len(words) == len(set(words)) == make().vocab_size == 217
    assert words[:4] == ('[PAD]', '[UNK]', '[CLS]', '[SEP]')
    assert words[-2:] == ('yes', 'zero')


def test_berts_vocabulary_gives_berts_tokens(tmp_path):
    path = tmp_path / 'vocab.txt'
    path.write_text('\n'.join(tokenizer.question_vocabulary()))
    theirs = transformers.BertTokenizer(str(path))
    ours = make(str(path), max_words=24)
    texts = ['Is the violin on the left louder than the drum?', 'Where is the loudest instrument?']
    expected = theirs(texts, padding='max_length', max_length=24)
    ids, mask = ours.encode(texts)
    np.testing.assert_array_equal(ids, expected['input_ids'])
    np.testing.assert_array_equal(mask, np.array(expected['attention_mask'], bool))


def test_a_saved_tokenizer_encodes_the_same(tmp_path):
    reader = make()
    path = tmp_path / 'tokenizer.json'
    reader.save(path)
    again = make(str(path))
    texts = ['Is it?', 'How many violins are there ' * 9, 'Zither_player\uff1f', '']
    for ours, theirs in zip(reader.encode(texts), again.encode(texts)):
        np.testing.assert_array_equal(ours, theirs)
    alone = tokenizers.Tokenizer.from_file(str(path)).encode_batch(texts[:2])  # without our code
    ids, mask = reader.encode(texts[:2])
    assert ids.tolist() == [each.ids for each in alone]
    assert mask.tolist() == [[bool(x) for x in each.attention_mask] for each in alone]


@pytest.mark.parametrize('name', ['nowhere/vocab.txt', 'nowhere/tokenizer.json', '/a/b/c'])
def test_a_missing_file_is_named(name):
    with pytest.raises(StageError, match=name):
        make(name)


def test_files_that_are_not_tokenizers(tmp_path):
    (tmp_path / 'vocab.txt').write_text('just\nwords\n')
    (tmp_path / 'tokenizer.json').write_text('{}')
    for name in ('vocab.txt', 'tokenizer.json'):
        with pytest.raises(StageError, match='expected'):
            make(str(tmp_path / name))


def test_a_hub_name_without_the_hub_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path))
    with pytest.raises(StageError, match='give its path') as caught:
        make('nobody/no-tokenizer')
    assert '\n' not in str(caught.value)


def test_words_that_the_model_does_not_see_are_named():
    questions = make(max_words=12)
    assert questions.losses('How many sounding violins in the video?') == []
    assert questions.losses('Is the скрипка louder?') == ["the tokenizer does not know 'скрипка'"]
    long = 'How many violins and cellos and pianos are there, and where is the tuba?'
    (sentence,) = questions.losses(long)
    assert sentence.startswith("'are there, and where is the tuba?' is behind the limit of 12")
    both = questions.losses(f'{long} 小')
    assert len(both) == 2 and "does not know '小'" in both[0]


@pytest.mark.parametrize('text', ['', '   ', '?!', '小提琴', ' \u200b'])
def test_a_blank_question(text):
    questions = make(max_words=12)
    assert questions.is_blank(text)
    assert not questions.is_blank(f'{text} tuba')
