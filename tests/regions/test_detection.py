import json

import numpy as np
import pytest
import safetensors.torch
import torch

from amuse_jax.errors import StageError
from amuse_jax.regions import detection, detector, process


def make_output(boxes: list[tuple], classes: int) -> torch.Tensor:
    """Return a detector's raw output for the given boxes (x0, y0, x1, y1, class, score)."""
    output = torch.zeros(1, 4 + classes, len(boxes))
    for place, (x0, y0, x1, y1, name, score) in enumerate(boxes):
        output[0, :4, place] = torch.tensor([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0])
        output[0, 4 + name, place] = score
    return output


def test_best_regions_drop_duplicates_of_their_class_and_keep_the_best():
    output = make_output(
        [
            (0, 0, 10, 10, 0, 0.6),
            (0, 0, 10, 9, 0, 0.8),  # IoU 0.9 with the first
            (0, 0, 10, 10, 1, 0.5),  # same place, another class
            (20, 0, 30, 10, 1, 0.7),
            (40, 0, 50, 10, 0, 0.2),  # below min_score
            (60, 0, 70, 10, 0, 0.3),  # one too many
            (80, 0, 90, 10, 0, 0.1),
        ],
        classes=2,
    )
    (best,) = detection.best_regions(output, regions=3, min_score=0.25, max_overlap=0.7)
    expected = [(0, 0, 10, 9, 0.8, 0), (20, 0, 30, 10, 0.7, 1), (0, 0, 10, 10, 0.5, 1)]
    np.testing.assert_allclose(best.numpy(), expected, rtol=1e-6)
    (more,) = detection.best_regions(output, regions=9, min_score=0.25, max_overlap=0.95)
    np.testing.assert_allclose(more[:, 4], [0.8, 0.7, 0.6, 0.5, 0.3], rtol=1e-6)


def test_pooled_features_are_means_over_the_box_in_every_map():
    fine = torch.zeros(2, 1, 8, 8)
    fine[1, 0, 2:4, 4:6] = 5.0  # pixels 16..32 down, 32..48 across at stride 8
    coarse = torch.arange(2.0)[:, None, None, None].expand(2, 2, 4, 4)
    boxes = [torch.zeros(0, 4), torch.tensor([[32.0, 16, 48, 32], [0, 0, 16, 16]])]
    none, two = detection.pool([fine, coarse], [8.0, 16.0], boxes)
    assert none.shape == (0, 3)
    np.testing.assert_allclose(two, [[5, 1, 1], [0, 1, 1]])


def test_boxes_are_shares_of_the_picture_without_its_grey_padding():
    model = detector.build(['a', 'b'], 0.125, 0.33).eval()
    channels = detector.map_channels(model)
    assert channels == [32, 64, 128]
    pictures = np.random.default_rng(0).integers(0, 255, (3, 64, 96, 3), np.uint8)
    found = detection.find_regions(
        model, pictures, (54, 96), regions=5, min_score=0.0, max_overlap=0.7
    )
    assert (found.classes >= 0).all()
    assert found.features.shape == (3, 5, 224) and found.features.dtype == np.float16
    assert (found.boxes >= 0).all() and (found.boxes <= 1).all()
    nothing = detection.find_regions(
        model, pictures, (54, 96), regions=5, min_score=0.99, max_overlap=0.7
    )
    assert (nothing.classes == -1).all() and not nothing.features.any()


def test_one_detection_per_true_box_is_a_true_positive():
    truth = np.array([[0, 0, 10, 10], [20, 0, 30, 10]], np.float32)
    detections = np.array(
        [
            [0, 0, 10, 6, 0.9, 0],  # IoU 0.6
            [0, 0, 10, 10, 0.8, 0],  # the first detection has taken that box
            [20, 0, 30, 10, 0.7, 1],  # another class
            [20, 0, 30, 4, 0.6, 0],  # IoU 0.4
            [20, 0, 30, 9, 0.5, 0],
        ],
        np.float32,
    )
    is_true = detector.true_positives(detections, truth, np.array([0, 0]))
    assert is_true.tolist() == [True, False, False, False, True]
    assert not detector.true_positives(detections, truth[:0], np.zeros(0, int)).any()


def test_a_saved_detector_loads_and_gives_the_same_output(tmp_path):
    model = detector.build(['a', 'b'], 0.125, 0.33).eval()
    detector.save(model, tmp_path / 'detector.pt')
    loaded = detector.load(tmp_path / 'detector.pt')
    assert loaded.names == {0: 'a', 1: 'b'}
    picture = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(picture)[0], model(picture)[0])


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_a_portable_detector_gives_the_same_output(tmp_path, memory_format):
    model = detector.build(['b', 'a'], 0.125, 0.33, max_channels=512).eval()
    detector.save_portable(model.to(memory_format=memory_format), tmp_path / 'a.safetensors')
    loaded = detector.load(tmp_path / 'a.safetensors')
    assert loaded.names == {0: 'b', 1: 'a'} and not loaded.training
    picture = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        expected = model.to(memory_format=torch.contiguous_format)(picture)[0]
        assert torch.equal(loaded(picture)[0], expected)


def test_a_detector_with_other_layers_is_not_made_portable(tmp_path):
    model = detector.build(['a'], 0.125, 0.33).eval()
    model.model[0].act = torch.nn.ReLU()
    with pytest.raises(StageError, match='cannot be exported; expected YOLOv8n'):
        detector.save_portable(model, tmp_path / 'a.safetensors')
    assert not list(tmp_path.iterdir())


def test_a_process_of_its_own_makes_a_detector_portable(tmp_path):
    source, target = tmp_path / 'detector.pt', tmp_path / 'detector.safetensors'
    model = detector.build(['a'], 0.125, 0.33).eval()
    detector.save(model, source)
    process.make_portable(source, target)
    picture = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(detector.load(target)(picture)[0], model(picture)[0])
    source.write_bytes(b'no weights')
    with pytest.raises(StageError, match='cannot be read'):
        process.make_portable(source, target)


SIZES = {'width': 0.125, 'depth': 0.33, 'max_channels': 1024, 'classes': ['a']}


@pytest.mark.parametrize(
    'changed',
    [
        {'width': 0.25}, {'depth': 1.0}, {'width': 1e9}, {'width': 'wide'}, {'max_channels': None},
        {'depth': float('nan')}, {'classes': []}, {'classes': ['a', 'b']}, {'classes': [1]},
        {'classes': ['a'] * 20_000},
    ],
)  # fmt: skip
def test_a_portable_detector_of_other_sizes_is_refused(tmp_path, changed):
    arrays = detector.build(['a'], 0.125, 0.33).state_dict()
    path, metadata = tmp_path / 'a.safetensors', {'yolov8': json.dumps(SIZES | changed)}
    safetensors.torch.save_file(arrays, path, metadata)
    with pytest.raises(StageError, match='is no exported detector') as error:
        detector.load(path)
    assert str(path) in str(error.value) and '\n' not in str(error.value)


def test_a_broken_portable_detector_is_refused(tmp_path):
    path = tmp_path / 'a.safetensors'
    detector.save_portable(detector.build(['a'], 0.125, 0.33).eval(), path)
    whole = path.read_bytes()
    for content in (whole[:-5], whole[:100], b'', b'no weights'):
        path.write_bytes(content)
        with pytest.raises(StageError, match='is no exported detector'):
            detector.load(path)
    safetensors.torch.save_file({'a': torch.zeros(2)}, path)  # no sizes
    with pytest.raises(StageError, match='is no exported detector'):
        detector.load(path)


class Payload:
    """An object whose unpickling creates the file `path`."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), 'w'))


@pytest.mark.parametrize('kind', ['missing', 'text', 'empty', 'truncated', 'tensors', 'suffix'])
def test_unusable_weights_are_refused_in_one_sentence(tmp_path, kind):
    path = tmp_path / ('detector.bin' if kind == 'suffix' else 'detector.pt')
    if kind in ('text', 'suffix'):
        path.write_text('no weights')
    if kind == 'empty':
        path.touch()
    if kind == 'tensors':
        torch.save({'model': {'weight': torch.zeros(2)}}, path)
    if kind == 'truncated':
        detector.save(detector.build(['a'], 0.125, 0.33), path)
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(StageError, match='YOLOv8 detector') as error:
        detector.load(path)
    assert str(path) in str(error.value) and '\n' not in str(error.value)


def test_code_in_weights_does_not_run(tmp_path):
    path, trace = tmp_path / 'detector.pt', tmp_path / 'trace'
    torch.save({'model': Payload(trace)}, path)
    with pytest.raises(StageError, match='cannot be read'):
        detector.load(path)
    assert not trace.exists()


def test_no_file_is_opened_where_ultralytics_would_unpickle_it(tmp_path, monkeypatch):
    """ultralytics unpickles plainly where PyTorch has no restricted loading of its classes."""
    from ultralytics.nn import tasks

    monkeypatch.setattr(tasks._SafeLoad, 'SUPPORTED', False)
    path, trace = tmp_path / 'detector.pt', tmp_path / 'trace'
    torch.save({'model': Payload(trace)}, path)
    with pytest.raises(StageError, match='would run code .* install versions that refuse it'):
        detector.load(path)
    assert not trace.exists()
    tasks.torch_safe_load(str(path), safe_only=True)  # the test's premise
    assert trace.exists()
