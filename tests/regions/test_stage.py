import json
import multiprocessing
import subprocess
import sys
import zipfile
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import ultralytics

from amuse_jax.config import default_config
from amuse_jax.data.prepared import Prepared
from amuse_jax.errors import StageError
from amuse_jax.media import guarded
from amuse_jax.regions import (
    detector,
    detector_training,
    finder,
    labelled_frames,
    pictures,
    shards,
    stage,
    worker,
)
from amuse_jax.regions.labelled_frames import LabelledFrames
from tests.media import writing
from tests.paths import ROOT

media = writing.media  # the fixture
WIDTH, HEIGHT, FPS = 96, 54, 4
LIMITS = guarded.Limits(seconds=300, gigabytes=4)


def write_video(path: Path, seconds: float, x: int) -> None:
    """Write a video of a red square on black, 20 pixels wide, with its left edge at `x`."""
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[10:30, x : x + 20] = (255, 0, 0)
    with av.open(str(path), 'w') as file:
        stream = file.add_stream('libx264', rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, 'yuv420p'
        for _ in range(round(seconds * FPS)):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        file.mux(stream.encode(None))


def make_data_set(root: Path) -> tuple[Path, Path]:
    """Write five records of four videos; return the folders render and prepare.

    Video b is 1 s long, the others are 2 s long.
    """
    render, prepare = root / 'render', root / 'prepare'
    for folder in (render / 'videos', render / 'truth', prepare):
        folder.mkdir(parents=True)
    splits = {'a': 'train', 'b': 'train', 'c': 'val', 'd': 'test'}
    for index, name in enumerate(splits):
        x = 10 * index
        write_video(render / 'videos' / f'{name}.mp4', 1.0 if name == 'b' else 2.0, x)
        corners = [x / WIDTH, 10 / HEIGHT, (x + 20) / WIDTH, 30 / HEIGHT]
        boxes = [[[*corners, 'violin', 0], [0.0, 0.0, 1.0, 1.0, 'player', 0]]] * 2
        truth = {'boxes': {'seconds': [0.5, 1.5], 'boxes': boxes}}
        (render / 'truth' / f'{name}.json').write_text(json.dumps(truth))
    ids = ['d', 'a', 'b', 'a', 'c']
    (prepare / 'videos.json').write_text(json.dumps([{'video_id': name} for name in ids]))
    questions = [{'record': ids.index(name), 'split': split} for name, split in splits.items()]
    (prepare / 'questions.json').write_text(json.dumps(questions))
    return render, prepare


@pytest.fixture(scope='module')
def data_set(tmp_path_factory):
    return make_data_set(tmp_path_factory.mktemp('data'))


def make_config(**changes):
    config = default_config()
    config.data.update(segments=2, segment_seconds=1.0, workers=1, shard_videos=2)
    config.rois.update(image_size=96, regions=3, feature_size=224, min_score=0.0)
    config.rois.detector.update(width=0.125, epochs=2, batch_size=2)
    config.rois.update(changes)
    return config


def run_in_process(config, folder: Path, data_set) -> dict:
    """Call `worker.run` in this process, which is faster and keeps the test's patches."""
    folder.mkdir(exist_ok=True)
    render, prepare = data_set
    records = json.loads((prepare / 'videos.json').read_text())
    questions = json.loads((prepare / 'questions.json').read_text())
    ids = [record['video_id'] for record in records]
    split_of = {ids[question['record']]: question['split'] for question in questions}
    worker.run(config, folder, render, ids, split_of)
    return json.loads((folder / 'report.json').read_text())


def load(folder: Path) -> dict[str, np.ndarray]:
    return {name: np.load(folder / f'{name}.npy') for name in finder.ARRAYS}


JOB = """
import json, sys
from pathlib import Path
from amuse_jax.regions import stage as rois
from amuse_jax.regions.process import RegionProcess
from amuse_jax.config import default_config
if __name__ == '__main__':
    folder, render, prepare = map(Path, sys.argv[1:4])
    config = default_config()
    config.data.update(segments=2, segment_seconds=1.0, workers=2, shard_videos=2)
    config.rois.update(image_size=96, regions=3, feature_size=224, min_score=0.0)
    config.rois.detector.update(width=0.125, epochs=2, batch_size=2)
    rois.run(config, folder, {'render': render, 'prepare': prepare})
    finder = RegionProcess(config, folder / 'detector.pt')
    found = finder.find(render / 'videos' / 'a.mp4')
    finder.close()
    assert found['features'].shape == (2, 3, 224)
    assert not {'torch', 'ultralytics'} & set(sys.modules)
"""


@pytest.mark.slow
def test_stage_trains_a_detector_and_finds_regions_without_pytorch_in_its_process(
    data_set, tmp_path
):
    job, folder = tmp_path / 'job.py', tmp_path / 'rois'
    job.write_text(JOB)
    folder.mkdir()
    root = ROOT
    done = subprocess.run(
        [sys.executable, job, folder, *data_set],
        env={'PYTHONPATH': str(root), 'PATH': ''},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert 'rois: mAP50' in done.stdout
    arrays = load(folder)
    assert {name: array.shape for name, array in arrays.items()} == {
        'boxes': (5, 2, 3, 4),
        'classes': (5, 2, 3),
        'scores': (5, 2, 3),
        'features': (5, 2, 3, 224),
    }
    types = [arrays[name].dtype for name in finder.ARRAYS]
    assert types == [np.float16, np.int16, np.float16, np.float16]
    has_region = arrays['classes'][:, :, 0] >= 0
    assert has_region.tolist() == [[True] * 2, [True] * 2, [True, False], [True] * 2, [True] * 2]
    for array in arrays.values():
        np.testing.assert_array_equal(array[1], array[3])  # one video in two records
    names = json.loads((folder / 'classes.json').read_text())
    assert names == list(labelled_frames.CLASSES) and len(names) == 23
    assert {path.name for path in folder.iterdir()} == {
        'boxes.npy', 'classes.npy', 'scores.npy', 'features.npy', 'classes.json', 'detector.pt',
        'training.json', 'report.json',
    }  # fmt: skip


def test_any_weights_are_used_with_their_own_classes(data_set, tmp_path):
    ultralytics.YOLO('yolov8n.yaml').save(tmp_path / 'coco.pt')
    config = make_config(weights=str(tmp_path / 'coco.pt'), feature_size=448)
    report = run_in_process(config, tmp_path / 'rois', data_set)
    assert report['trained_on'] == 0 and report['map50'] is None and report['records'] == 5
    assert np.load(tmp_path / 'rois' / 'features.npy').shape == (5, 2, 3, 448)
    assert len(json.loads((tmp_path / 'rois' / 'classes.json').read_text())) == 80


def test_a_feature_size_that_the_detector_does_not_have_is_an_error(data_set, tmp_path):
    config = make_config(feature_size=100)
    with pytest.raises(StageError, match=r'32 \+ 64 \+ 128 .*rois.feature_size=224'):
        run_in_process(config, tmp_path / 'trained', data_set)
    ultralytics.YOLO('yolov8n.yaml').save(tmp_path / 'coco.pt')
    config = make_config(feature_size=100, weights=str(tmp_path / 'coco.pt'))
    with pytest.raises(StageError, match='rois.feature_size=448'):
        run_in_process(config, tmp_path / 'given', data_set)


def test_a_run_without_weights_and_boxes_is_an_error(data_set, tmp_path):
    render, prepare = data_set
    (tmp_path / 'videos').symlink_to(render / 'videos')
    with pytest.raises(StageError, match='rois.weights is empty'):
        run_in_process(make_config(), tmp_path / 'rois', (tmp_path, prepare))


def test_a_killed_search_continues_and_a_missing_video_is_named(data_set, tmp_path, monkeypatch):
    _, prepare = data_set
    root = tmp_path / 'render'
    (root / 'videos').mkdir(parents=True)
    for name in 'abd':  # not c
        write_video(root / 'videos' / f'{name}.mp4', 2.0, 0)
    detector.save(detector.build(list(labelled_frames.CLASSES), 0.125, 0.33), tmp_path / 'mine.pt')
    config = make_config(weights=str(tmp_path / 'mine.pt'))
    shards_of = []
    write = shards.write_regions

    def die_at_second(finder, root, video_ids, path):
        shards_of.append(video_ids)
        if len(shards_of) == 2:
            raise KeyboardInterrupt
        write(finder, root, video_ids, path)

    monkeypatch.setattr(shards, 'write_regions', die_at_second)
    with pytest.raises(KeyboardInterrupt):
        run_in_process(config, tmp_path / 'rois', (root, prepare))
    report = run_in_process(config, tmp_path / 'rois', (root, prepare))
    assert shards_of == [['a', 'b'], ['c', 'd'], ['c', 'd']]
    assert report['unreadable'] == {'c': 'the file does not exist'}
    classes = load(tmp_path / 'rois')['classes']
    assert (classes[4] == -1).all() and (classes[:4] >= 0).any()


def toy_frames(n: int) -> LabelledFrames:
    """Draw n pictures with a red square at a random place."""
    rng = np.random.default_rng(0)
    images = np.zeros((n, 64, 96, 3), np.uint8)
    boxes = []
    for picture, x, y in zip(images, rng.integers(0, 70, n), rng.integers(0, 40, n)):
        picture[y : y + 24, x : x + 24] = (255, 0, 0)
        boxes.append(np.array([[x, y, x + 24, y + 24]], np.float32))
    return LabelledFrames(images, boxes, [np.zeros(1, np.int64)] * n)


def test_killed_training_continues_to_the_same_detector(tmp_path, monkeypatch):
    frames, schedule = toy_frames(8), detector_training.Schedule(3, 4, 0.05, seed=0)

    def train(name):
        torch.manual_seed(0)
        model = detector.build(['a', 'b'], 0.125, 0.33)
        return detector_training.train(model, frames, schedule, tmp_path / name).state_dict()

    uninterrupted = train('uninterrupted.pt')
    save_state = detector_training._save_state

    def save_and_die(model, optimizer, epochs, path):
        save_state(model, optimizer, epochs, path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(detector_training, '_save_state', save_and_die)
        train('killed.pt')
    resumed = train('killed.pt')
    for name, value in uninterrupted.items():
        torch.testing.assert_close(resumed[name], value, msg=name)


def store_as_on_a_gpu(path: Path) -> None:
    """Rewrite a file of `torch.save` so that its arrays say that they were on the first GPU."""
    with zipfile.ZipFile(path) as file:
        content = {entry.filename: file.read(entry) for entry in file.infolist()}
    (name,) = [name for name in content if name.endswith('/data.pkl')]
    where = [pickled_string(device) for device in ('cpu', 'cuda:0')]
    assert where[0] in content[name]
    content[name] = content[name].replace(*where)
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_STORED) as file:
        for name, data in content.items():
            file.writestr(name, data)


def pickled_string(text: str) -> bytes:
    return b'X' + len(text).to_bytes(4, 'little') + text.encode()


@pytest.mark.skipif(torch.cuda.is_available(), reason='tests a machine without a GPU')
def test_training_that_began_on_a_gpu_continues_on_a_cpu(tmp_path, monkeypatch):
    frames, schedule = toy_frames(4), detector_training.Schedule(2, 4, 0.05, seed=0)
    model = detector.build(['a', 'b'], 0.125, 0.33)
    kept = {}
    save_state = detector_training._save_state

    def save(model, optimizer, epochs, path):
        save_state(model, optimizer, epochs, path)
        kept[epochs] = path.read_bytes()

    monkeypatch.setattr(detector_training, '_save_state', save)
    whole = detector_training.train(model, frames, schedule, tmp_path / 'a.pt').state_dict()
    (tmp_path / 'b.pt').write_bytes(kept[1])
    store_as_on_a_gpu(tmp_path / 'b.pt')
    with pytest.raises(RuntimeError, match='CUDA'):  # the test's premise
        torch.load(tmp_path / 'b.pt', weights_only=True)
    model = detector.build(['a', 'b'], 0.125, 0.33)
    again = detector_training.train(model, frames, schedule, tmp_path / 'b.pt').state_dict()
    for name, value in whole.items():
        torch.testing.assert_close(again[name], value, msg=name)


def test_training_finds_a_red_square(tmp_path):
    frames = toy_frames(48)
    torch.manual_seed(0)
    model = detector.build(['square'], 0.125, 0.33)
    schedule = detector_training.Schedule(10, 8, 0.1, seed=0)
    model = detector_training.train(model, frames, schedule, tmp_path / 'state.pt')
    found = detector.average_precision(model, frames.pictures, frames.boxes, frames.classes)
    assert found['square'] > 0.8


def test_pictures_keep_their_proportions_and_boxes_are_scaled_with_them(data_set):
    render, _ = data_set
    found = pictures.read(LIMITS, render / 'videos' / 'b.mp4', [0.5, 1.5], 192)
    assert found.content_shape == (108, 192) and found.pictures.shape == (2, 128, 192, 3)
    assert found.mask.tolist() == [True, False]
    assert (found.pictures[0, 108:] == pictures.GREY).all()
    frames = labelled_frames.read(
        render,
        ['a', 'b'],
        labelled_frames.CLASSES,
        frames=1,
        image_size=192,
        workers=1,
        limits=LIMITS,
        description='',
    )
    children = multiprocessing.active_children()
    assert not any(child.name == guarded.PROCESS_NAME for child in children)
    assert len(frames) == 2
    x0, y0, x1, y1 = frames.boxes[1][0].round().astype(int)  # in video b, enlarged by 2
    assert (x0, y0, x1, y1) == (20, 20, 60, 60)
    inside = frames.pictures[1, y0 + 2 : y1 - 2, x0 + 2 : x1 - 2].reshape(-1, 3).mean(0)
    assert inside[0] > 200 and inside[1] < 60


@pytest.mark.parametrize(
    ('boxes', 'sentence'),
    [
        ('{"seconds": [0.5], "boxes": []}', '1 seconds but boxes at 0'),
        ('{"seconds": [NaN], "boxes": [[]]}', 'nan'),
        ('{"seconds": [0], "boxes": [[[9, 9, 90, 70, "drum"]]]}', r'corners \[\[9.0, 9.0, 90.0'),
        ('{"seconds": [0], "boxes": [[[0.5, 0, 0.1, 1, "drum"]]]}', 'corners'),
        ('{"seconds": [0], "boxes": [[[0, 0, NaN, 1, "drum"]]]}', 'corners'),
        ('[' * 100_000, 'RecursionError'),
    ],
)
def test_a_malformed_truth_is_named(data_set, tmp_path, boxes, sentence):
    render, _ = data_set
    (tmp_path / 'videos').symlink_to(render / 'videos')
    (tmp_path / 'truth').mkdir()
    (tmp_path / 'truth' / 'a.json').write_text(f'{{"boxes": {boxes}}}')
    with pytest.raises(StageError, match=f'a.json.*{sentence}'):
        labelled_frames.read(
            tmp_path,
            ['a'],
            labelled_frames.CLASSES,
            frames=1,
            image_size=96,
            workers=1,
            limits=LIMITS,
            description='',
        )


def test_a_video_of_several_splits_counts_as_a_train_video(tmp_path):
    ids = ['a', 'b', 'c', 'a', 'd']
    (tmp_path / 'videos.json').write_text(json.dumps([{'video_id': name} for name in ids]))
    splits = [
        (0, 'train'),
        (0, 'test'),
        (1, 'test'),
        (1, 'val'),
        (2, 'test'),
        (3, 'val'),
        (4, 'val'),
    ]
    rows = [{'record': record, 'split': split} for record, split in splits]
    for order in (rows, rows[::-1]):
        (tmp_path / 'questions.json').write_text(json.dumps(order))
        found = stage.splits_of_videos(Prepared(tmp_path))
        assert found == {'a': 'train', 'b': 'val', 'c': 'test', 'd': 'val'}


@pytest.mark.parametrize('pictures_in_it', [1, 2])
def test_regions_of_a_still_over_a_song(pictures_in_it, media, tmp_path):
    still = media.Picture(seconds=pictures_in_it / 10, options=(('bf', '3'),), height=96)
    path = media.write(tmp_path / 'a.mp4', still, media.Sound(seconds=2))
    detector.save(detector.build(list(labelled_frames.CLASSES), 0.125, 0.33), tmp_path / 'mine.pt')
    found = finder.Finder.from_settings(make_config(), tmp_path / 'mine.pt').find(path)
    assert (found['classes'][:, 0] >= 0).tolist() == [True, True]
    np.testing.assert_array_equal(found['boxes'][0], found['boxes'][1])
