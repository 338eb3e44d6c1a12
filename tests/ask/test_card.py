"""The model card: metadata for the hub, data, recipe, results with intervals, licences."""

import json
import math

import yaml
from huggingface_hub import ModelCard

from amuse_jax.ask import card
from amuse_jax.evaluation import tables

COLUMNS = tables.COLUMNS
PLAIN = {
    'data.root': '', 'data.annotations': 'plain', 'rois.weights': '', 'checkpoints.visual': '',
    'model.text.tokenizer': 'questions', 'train.epochs': 1, 'train.head_epochs': 8,
}  # fmt: skip
REAL = {
    'data.root': '/home/someone/music', 'data.annotations': 'v1', 'rois.weights': '/x/y/yolo.pt',
    'data.videos': '/mnt/videos', 'checkpoints.visual': 'microsoft/swinv2-large',
    'checkpoints.audio': '/data/weights/htsat.ckpt', 'model.text.tokenizer': '~/vocab.txt',
}  # fmt: skip
SUMMARIES = {
    'prepare': {'videos': 1650, 'questions': {'train': 19520, 'test': 448}},
    'train': {
        'trainable_parameters': 2085908, 'frozen_parameters': 5,
        'best': {'epoch': 8, 'val_accuracy': 0.587},
    },
    'rois': {'map50': 0.591},
}  # fmt: skip


def scores(value=60.04):
    row = dict.fromkeys(COLUMNS, value)
    bounds = {column: (value - 8, value + 8) for column in COLUMNS}
    part = {
        'questions': dict.fromkeys(COLUMNS, 448),
        'rows': {'Amuse': row, 'most frequent answer': row},
        'intervals': {'Amuse': bounds},
    }
    return {
        'test_set': {'name': '', 'published': '', 'questions': 448, 'of': 448},
        'model': {'fingerprint': 'f'},
        'parts': {'test': part},
    }


def test_the_metadata_is_that_of_the_hub():
    text = card.render(REAL, SUMMARIES, scores())
    data = ModelCard(text).data
    assert data.library_name == 'amuse_jax' and data.license == 'other'
    assert data.base_model == ['microsoft/swinv2-large']
    (result,) = data.eval_results
    assert result.metric_value == 60.04 and result.dataset_name == 'MUSIC-AVQA'
    assert yaml.safe_load(text.split('---')[1])['model-index'][0]['name'] == 'Amuse'


def test_data_recipe_results_and_licences_are_told():
    text = card.render(REAL, SUMMARIES, scores())
    assert 'layout of MUSIC-AVQA (annotation files: v1)' in text
    assert '1,650 videos with 19,520 train, 448 test questions' in text
    assert '| Amuse, ± 95 % ' in text and '±8.0' in text and 'bootstrap over test videos' in text
    assert 'CC BY-NC 4.0 (non-commercial)' in text and 'AGPL-3.0' in text
    assert 'Swin-V2 starts from `microsoft/swinv2-large`' in text
    assert '2,085,908 parameters were trained' in text
    assert 'those of epoch 8, which had the best validation accuracy (58.7 %)' in text
    assert 'mAP50 of 0.591' in text


def test_no_folder_of_the_machine_is_named():
    text = card.render(REAL, SUMMARIES, scores())
    for part in ('/home', 'someone', '/mnt', '/x/y', '/data', '~'):
        assert part not in text
    assert 'yolo.pt' in text and 'htsat.ckpt' in text


def test_a_model_of_rendered_performances_has_no_licence_of_music_avqa():
    text = card.render(PLAIN, {}, None)
    assert 'rendered by amuse_jax' in text and 'CC BY-NC' not in text
    assert 'The model has not been evaluated.' in text
    assert 'for 8 epochs with closed adapters' in text and 'for 1 epoch with open' in text
    assert ModelCard(text).data.license == 'apache-2.0'
    assert ModelCard(text).data.eval_results is None


def test_only_an_evaluation_of_this_model_counts(tmp_path):
    assert not card.is_about(tmp_path, 'f')
    (tmp_path / 'manifest.json').write_text(json.dumps({'format': 1}))
    (tmp_path / 'scores.json').write_text(json.dumps(scores()))
    assert card.is_about(tmp_path, 'f') and not card.is_about(tmp_path, 'other')


def test_an_empty_test_set_has_no_result():
    text = card.render(PLAIN, {}, scores(math.nan))
    assert ModelCard(text).data.eval_results is None
