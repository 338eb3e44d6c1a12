"""A YOLOv8 detector (3.3): build, save, load safely, and evaluate it.

This module imports PyTorch, so only processes of the rois stage may import it. The process that
trains in JAX never imports PyTorch.
"""

import copy
import json
import tempfile
from pathlib import Path
from pickle import UnpicklingError  # noqa: TID251, raised by PyTorch's safe load

import numpy as np
import safetensors
import safetensors.torch
import torch
import ultralytics
from ultralytics.nn.modules import Detect
from ultralytics.nn.tasks import DetectionModel, torch_safe_load, yaml_model_load
from ultralytics.utils import IterableSimpleNamespace
from ultralytics.utils.metrics import ap_per_class, box_iou
from ultralytics.utils.nms import non_max_suppression

from amuse_jax.errors import StageError, first_line
from amuse_jax.system.files import write_atomically

# Ultralytics' defaults, except `cls`, which is 0.5 there: a short training learns the classes last.
LOSS_GAINS = {'box': 7.5, 'cls': 2.0, 'dfl': 1.5}
# Ultralytics uses 0.03, which is too slow for the statistics of a training of a few hundred steps.
BATCH_NORM_MOMENTUM = 0.1
PORTABLE = '.safetensors'  # ending of the files of `save_portable`
_SIZES = 'yolov8'  # key of the sizes in the metadata of such a file
# The largest YOLOv8, YOLOv8x, has 1.25, 1.0 and 512; the smallest ones have 1024 channels.
_LARGEST = {'width': 2.0, 'depth': 2.0, 'max_channels': 2048}
_MOST_CLASSES = 10_000


def build(names: list[str], width: float, depth: float, max_channels: int = 1024) -> DetectionModel:
    """Build a YOLOv8 detector with random weights.

    Args:
      names: class names.
      width: factor on YOLOv8's channels: 0.25 for YOLOv8n, 0.5 for YOLOv8s. The three maps have
        256, 512 and 1024 times `width` channels.
      depth: factor on the number of layers per block: 0.33 for YOLOv8n and YOLOv8s.
      max_channels: largest number of channels before the factor is applied: 1024 for YOLOv8n and
        YOLOv8s.
    """
    architecture = yaml_model_load('yolov8n.yaml')
    architecture |= {'scales': {'n': [depth, width, max_channels]}, 'nc': len(names)}
    model = DetectionModel(architecture, verbose=False)
    model.names = dict(enumerate(names))
    model.args = IterableSimpleNamespace(**LOSS_GAINS)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = BATCH_NORM_MOMENTUM
    return model


def save(model: DetectionModel, path: Path) -> None:
    """Write a checkpoint that ultralytics can read, too: `ultralytics.YOLO(path)`."""
    saved = copy.deepcopy(model).cpu().eval()
    saved.criterion = None
    checkpoint = {'model': saved, 'train_args': dict(LOSS_GAINS)}
    write_atomically(path, lambda beside: torch.save(checkpoint, beside))


def save_portable(model: DetectionModel, path: Path) -> None:
    """Write the weights as safetensors, with the sizes and class names in the metadata.

    Raises:
      StageError: the detector is not YOLOv8 at any width and depth, so the weights and these sizes
        do not determine it.
    """
    sizes = _sizes(model) | {'classes': [model.names[index] for index in sorted(model.names)]}
    arrays = {name: x.detach().cpu().contiguous() for name, x in model.state_dict().items()}
    try:
        rebuilt = _from_sizes(sizes, arrays)
        original = copy.deepcopy(model).cpu().to(memory_format=torch.contiguous_format)
        picture = torch.linspace(0, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)
        with torch.inference_mode():
            is_same = torch.equal(rebuilt(picture)[0], original(picture)[0])
    except (ValueError, RuntimeError):
        is_same = False
    if not is_same:
        raise StageError(
            'the detector has layers that YOLOv8 does not have, so it cannot be exported; expected '
            'YOLOv8n, s, m, l or x, or one that this package has trained'
        )
    metadata = {'format': 'pt', _SIZES: json.dumps(sizes)}
    write_atomically(path, lambda beside: safetensors.torch.save_file(arrays, beside, metadata))


def _sizes(model: DetectionModel) -> dict[str, float]:
    """Return the width, depth and largest number of channels of a YOLOv8 detector."""
    found = model.yaml
    if found.get('scales'):
        scale = found.get('scale') or next(iter(found['scales']))
        depth, width, max_channels = found['scales'][scale]
    else:  # checkpoints of ultralytics 8.0
        depth, width = found.get('depth_multiple', 1.0), found.get('width_multiple', 1.0)
        max_channels = 512 if depth >= 1 else 768 if depth > 0.5 else 1024
    return {'width': width, 'depth': depth, 'max_channels': max_channels}


def _from_sizes(sizes: dict, arrays: dict[str, torch.Tensor]) -> DetectionModel:
    """Return the detector with these sizes, from `save_portable`, and weights.

    Raises:
      ValueError: the sizes are not those of a YOLOv8 detector.
      RuntimeError: the weights have other names or shapes.
    """
    for name, largest in _LARGEST.items():
        value = sizes.get(name)
        if not isinstance(value, int | float) or not 0 < value <= largest:
            raise ValueError(f'{name} is {value!r}, expected a number up to {largest}')
    classes = sizes.get('classes')
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError('its classes are not a list of names')
    if not 0 < len(classes) <= _MOST_CLASSES:
        raise ValueError(f'it has {len(classes)} classes, expected 1 to {_MOST_CLASSES}')
    model = build(classes, sizes['width'], sizes['depth'], sizes['max_channels'])
    model.load_state_dict(arrays)
    return model.float().eval()


def _load_portable(path: Path) -> DetectionModel:
    try:
        with safetensors.safe_open(path, 'pt') as file:
            sizes = json.loads((file.metadata() or {})[_SIZES])
            arrays = {name: file.get_tensor(name) for name in file.keys()}
        return _from_sizes(dict(sizes), arrays)
    except (
        safetensors.SafetensorError, OSError, KeyError, ValueError, TypeError, RuntimeError,
    ) as error:  # fmt: skip
        raise StageError(
            f'{path} is no exported detector ({first_line(error)}); expected the '
            'detector.safetensors of an exported model, complete and unchanged; copy it again'
        ) from error


def load(path: Path) -> DetectionModel:
    """Read a YOLOv8 checkpoint or a file of `save_portable`, in float32 and in evaluation mode.

    For a checkpoint this is ultralytics' restricted loading: `torch.load(weights_only=True)` with
    an allow-list of the layer classes of PyTorch and ultralytics. A checkpoint that names any other
    class is refused, so that no code from the file runs. `require_safe_load` makes sure of it. A
    file of `save_portable` holds nothing but arrays, and sizes that are checked.

    Returns:
      The detector; its attribute `names` maps a class index to a class name.

    Raises:
      StageError: the file is missing, is not an ultralytics checkpoint, or holds no detector; or
        the installed packages do not refuse code in a checkpoint.
    """
    advice = (
        'expected the .pt file of a YOLOv8 detector, as ultralytics saves it; correct rois.weights'
    )
    if not path.is_file():
        raise StageError(f'rois.weights: there is no file {path}; {advice}')
    if path.suffix == PORTABLE:
        return _load_portable(path)
    if path.suffix != '.pt':
        raise StageError(f'rois.weights: {path} does not end in .pt; {advice}')
    require_safe_load()
    try:
        checkpoint, _ = torch_safe_load(str(path), safe_only=True)
    except (
        TypeError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, ImportError,
        OSError, UnpicklingError,
    ) as error:  # fmt: skip
        reason = first_line(error)
        raise StageError(f'rois.weights: {path} cannot be read ({reason}); {advice}') from error
    found = checkpoint
    if isinstance(checkpoint, dict):
        found = checkpoint.get('ema') or checkpoint.get('model')
    if not isinstance(found, DetectionModel) or type(found.model[-1]) is not Detect:
        kind = f'a {type(found).__name__}' if found is not None else 'no model'
        raise StageError(f'rois.weights: {path} holds {kind}; {advice}')
    model = found.float().eval()
    model.names = _names(model)
    return model


class _Canary:
    """An object that a checkpoint must not hold; unpickling it calls a harmless function."""

    def __reduce__(self):
        return (str.upper, ('harmless',))


def require_safe_load() -> None:
    """Make sure that ultralytics' restricted loading refuses code in a checkpoint.

    With a PyTorch that is too old for it, ultralytics unpickles the file instead, without a word.
    So a file with a harmless call is loaded first; it must be refused.

    Raises:
      StageError: the call was not refused.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'canary.pt'
        torch.save({'model': _Canary()}, path)
        try:
            torch_safe_load(str(path), safe_only=True)
        except (TypeError, UnpicklingError):
            return
    raise StageError(
        f'PyTorch {torch.__version__} and ultralytics {ultralytics.__version__} would run code '
        "that a detector's .pt file may contain, so none is opened; run pip install '.[offline]' "
        'to install versions that refuse it'
    )


def _names(model: DetectionModel) -> dict[int, str]:
    names = model.names
    pairs = names.items() if isinstance(names, dict) else enumerate(names)
    return {int(index): str(name) for index, name in pairs}


def map_channels(model: DetectionModel) -> list[int]:
    """Return the channels of the three maps that the detection head reads, the finest first."""
    return [branch[0].conv.in_channels for branch in model.model[-1].cv2]


def choose_device() -> torch.device:
    """Return the GPU if PyTorch finds one, else the CPU."""
    return torch.device('cuda' if torch.cuda.is_available() else 'cpu')


def to_input(pictures: np.ndarray, device: torch.device) -> torch.Tensor:
    """Convert uint8 (n, H, W, 3) RGB to float (n, 3, H, W) in [0, 1], in the fastest layout."""
    images = torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2)
    return images.float().div_(255).contiguous(memory_format=torch.channels_last)


def average_precision(
    model: DetectionModel, pictures: np.ndarray, boxes: list[np.ndarray], classes: list[np.ndarray]
) -> dict[str, float]:
    """Compute the average precision of each class at an IoU of 0.5, as ultralytics does.

    The mean over the classes is the mAP50.

    Args:
      model: the detector.
      pictures: uint8 (n, H, W, 3), H and W multiples of 32.
      boxes: n arrays (m, 4), true boxes, xyxy in pixels.
      classes: n arrays (m,), class indices of the true boxes.

    Returns:
      The AP50 by class name, for the classes that have true boxes.
    """
    device = next(model.parameters()).device
    hits, scores, predicted, batch = [], [], [], 32
    for start in range(0, len(pictures), batch):
        with torch.inference_mode():
            output, _ = model(to_input(pictures[start : start + batch], device))
        # Same settings as ultralytics' validator, but without its time limit, which drops pictures.
        found = non_max_suppression(
            output, 0.001, 0.7, multi_label=True, max_time_img=float('inf'), nc=len(model.names)
        )
        for index, detections in enumerate(found, start):
            detections = detections.cpu()
            hits.append(true_positives(detections.numpy(), boxes[index], classes[index]))
            scores.append(detections[:, 4].numpy())
            predicted.append(detections[:, 5].numpy())
    result = ap_per_class(
        np.concatenate(hits)[:, None],
        np.concatenate(scores),
        np.concatenate(predicted),
        np.concatenate(classes),
    )
    return {model.names[int(c)]: float(ap[0]) for c, ap in zip(result[6], result[5])}


def true_positives(detections: np.ndarray, boxes: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return which detections are true positives.

    A detection is one if its IoU with a true box of the same class is at least 0.5 and no detection
    with a higher score has taken that box.

    Args:
      detections: (n, 6) xyxy, score, class; the highest score first.
      boxes: (m, 4) true boxes, in the same unit.
      classes: (m,) classes of the true boxes.

    Returns:
      bool (n,).
    """
    is_true_positive = np.zeros(len(detections), bool)
    if not len(boxes):
        return is_true_positive
    overlap = box_iou(
        torch.from_numpy(boxes), torch.from_numpy(detections[:, :4])
    ).numpy()  # (m, n)
    overlap = overlap * (classes[:, None] == detections[None, :, 5])
    for index in range(len(detections)):
        best = overlap[:, index].argmax()
        if overlap[best, index] >= 0.5:
            is_true_positive[index] = True
            overlap[best] = 0.0
    return is_true_positive
