import os
import re

from amuse_jax.config import default_config
from amuse_jax.evaluation import other_data


def folder_name(root, **changes):
    config = default_config()
    config.evaluate.data.update(root=str(root), **changes)
    return other_data.folder_name(config)


def test_every_data_set_has_a_folder_of_its_own(tmp_path):
    a, b = tmp_path / 'a/v2', tmp_path / 'b/v2'
    names = [
        folder_name(a, annotations='v2-balance'),
        folder_name(a, annotations='v2-bias'),
        folder_name(b, annotations='v2-bias'),
        folder_name(a, annotations='v1'),
        folder_name(a, annotations='v1', rephrased='R'),
    ]
    assert len(set(names)) == len(names)
    assert names[0].startswith('on-v2-v2-balance-')


def test_all_spellings_of_a_root_give_the_same_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = tmp_path / 'my set (1)'
    root.mkdir()
    (tmp_path / 'link').symlink_to(root)
    spellings = (root, f'{root}/', root.name, os.path.join('.', root.name), 'link')
    (name,) = {folder_name(each) for each in spellings}
    assert re.fullmatch(r'on-my-set-1--plain-[0-9a-f]{8}', name)


def test_a_folder_name_is_not_too_long_for_a_file_system(tmp_path):
    assert len(folder_name(tmp_path / ('x' * 255), annotations='v2-balance')) < 128


def test_annotations_are_the_other_data_sets_if_it_is_set():
    config = default_config()
    config.data.annotations = 'v1-json'
    config.evaluate.data.annotations = 'v2-bias'
    assert other_data.annotations(config) == 'v1-json'
    config.evaluate.data.root = 'elsewhere'
    assert other_data.annotations(config) == 'v2-bias'
