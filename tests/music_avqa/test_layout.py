import re

import pytest

from amuse_jax import music_avqa
from amuse_jax.config import default_config
from amuse_jax.errors import StageError
from amuse_jax.music_avqa import layout


def test_data_root(tmp_path):
    config = default_config()
    assert music_avqa.data_root(config, {'render': tmp_path}) == tmp_path
    with pytest.raises(StageError, match='data.root'):
        music_avqa.data_root(config, {})
    config.data.root = str(tmp_path / 'nowhere')
    with pytest.raises(StageError, match='does not exist'):
        music_avqa.data_root(config, {'render': tmp_path})


def test_the_suffixes_of_a_path():
    assert layout.path_suffixes('data/json/a.json') == ['data/json/a.json', 'json/a.json', 'a.json']


@pytest.mark.parametrize('scheme', layout.SCHEMES)
@pytest.mark.parametrize('folders', [0, 1, 9])
def test_a_clone_a_part_of_it_and_bare_files(scheme, folders, write, tmp_path):
    """The first folders of a path may be missing."""
    expected = {}
    for split, names in layout.FILES[scheme].items():
        suffixes = layout.path_suffixes(names[0])
        suffix = suffixes[min(folders, len(suffixes) - 1)]
        expected[split] = write(suffix)
    assert layout.find(tmp_path, scheme) == expected


def test_a_whole_clone_of_version_1_holds_both_releases(write, tmp_path):
    for split in music_avqa.SPLITS:
        for folder in ('json', 'json_update'):
            write(f'data/{folder}/avqa-{split}.json')
    assert layout.find(tmp_path, 'v1')['val'] == tmp_path / 'data/json_update/avqa-val.json'
    assert layout.find(tmp_path, 'v1-json')['val'] == tmp_path / 'data/json/avqa-val.json'
    assert layout.find(tmp_path, 'v1') == layout.find(tmp_path, 'v1-by-video')


@pytest.mark.parametrize('kind', ['balance', 'bias'])
def test_version_2_with_and_without_validation_files(kind, write, tmp_path):
    folder = {'balance': 'balance_full_set', 'bias': 'bias_set'}[kind]
    test = write(f'data/{folder}/test_{kind}.json')
    cut = write(f'music_avqa_v2/{kind}_train.json')
    assert layout.find(tmp_path, f'v2-{kind}') == {'train': cut, 'test': test}
    valid = write(f'music_avqa_v2/{kind}_valid.json')
    copies = {split: write(f'music_avqa_v2/{split}_{kind}.json') for split in ('train', 'test')}
    assert layout.find(tmp_path, f'v2-{kind}') == copies | {'val': valid, 'test': test}
    test.unlink()
    assert layout.find(tmp_path, f'v2-{kind}') == copies | {'val': valid}
    write(f'data/{folder}/test_{kind}.json')
    train = write(f'data/{folder}/train_{kind}.json')
    assert layout.find(tmp_path, f'v2-{kind}') == {'train': train, 'val': valid, 'test': test}


def test_a_missing_file_is_one_sentence_with_its_places(write, tmp_path):
    write('avqa-train.json')
    write('avqa-test.json')
    expected = (
        f'the annotation file avqa-val.json does not exist in {tmp_path}; expected it there as '
        'data/json_update/avqa-val.json or json_update/avqa-val.json or avqa-val.json '
        '(data.annotations is v1)'
    )
    with pytest.raises(StageError, match=re.escape(expected)):
        layout.find(tmp_path, 'v1')


def test_where_rephrased_questions_are(write, tmp_path):
    assert layout.find_rephrased(tmp_path, '') == ()
    head, tail = write('R/avqa-test-head.json'), write('R/avqa-test-tail.json')
    both = write('R/avqa-test-headtail.json')
    assert layout.find_rephrased(tmp_path, 'R') == (head, tail)
    assert layout.find_rephrased(tmp_path, 'R/avqa-test-headtail.json') == (both,)
    assert layout.find_rephrased(tmp_path / 'x', str(both)) == (both,)
    tail.unlink()
    for name in ('R', 'S'):
        with pytest.raises(StageError, match='data.rephrased: there is no file'):
            layout.find_rephrased(tmp_path, name)
