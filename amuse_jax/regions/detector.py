"""A YOLOv8 detector (3.3): built, saved, loaded without running foreign code, and judged.

Only for processes of the rois stage: it imports PyTorch, which the process that trains in JAX
never does.
"""

import copy
import pickle
from pathlib import Path

import numpy as np
import torch
from ultralytics.nn.modules import Detect
from ultralytics.nn.tasks import DetectionModel, torch_safe_load, yaml_model_load
from ultralytics.utils import IterableSimpleNamespace
from ultralytics.utils.metrics import ap_per_class, box_iou
from ultralytics.utils.nms import non_max_suppression

from amuse_jax.errors import StageError
from amuse_jax.system.files import write_atomically

# Ultralytics' defaults, but for 0.5 for the classes, which short trainings learn last.
LOSS_GAINS = {'box': 7.5, 'cls': 2.0, 'dfl': 1.5}
# Ultralytics has 0.03, with which the statistics lag behind a training of a few hundred steps.
BATCH_NORM_MOMENTUM = 0.1


def build(names: list[str], width: float, depth: float) -> DetectionModel:
    """A YOLOv8 detector with random weights.

    Args:
      names: the classes.
      width: multiple of YOLOv8's channels; n is 0.25, s 0.5. The three maps have 256, 512 and
        1024 times it.
      depth: multiple of the layers in its blocks; n and s have 0.33.
    """
    architecture = yaml_model_load('yolov8n.yaml')
    architecture |= {'scales': {'n': [depth, width, 1024]}, 'nc': len(names)}
    model = DetectionModel(architecture, verbose=False)
    model.names = dict(enumerate(names))
    model.args = IterableSimpleNamespace(**LOSS_GAINS)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = BATCH_NORM_MOMENTUM
    return model


def save(model: DetectionModel, path: Path) -> None:
    """Writes a checkpoint that ultralytics reads as well: `ultralytics.YOLO(path)`."""
    kept = copy.deepcopy(model).cpu().eval()
    kept.criterion = None
    checkpoint = {'model': kept, 'train_args': dict(LOSS_GAINS)}
    write_atomically(path, lambda beside: torch.save(checkpoint, beside))


def load(path: Path) -> DetectionModel:
    """Reads a YOLOv8 checkpoint, float32 and in evaluation mode; `.names` maps index to name.

    The file is read with `torch.load(weights_only=True)` and an allow-list of PyTorch's and
    ultralytics' own layer classes, which is ultralytics' restricted loading: a checkpoint that
    names anything else is refused, so that no code from the file runs.

    Raises:
      StageError: no such file, not an ultralytics checkpoint, or not of a detector.
    """
    advice = (
        'expected the .pt file of a YOLOv8 detector, as ultralytics saves it; mend rois.weights'
    )
    if not path.is_file():
        raise StageError(f'rois.weights: there is no file {path}; {advice}')
    if path.suffix != '.pt':
        raise StageError(f'rois.weights: {path} does not end in .pt; {advice}')
    try:
        checkpoint, _ = torch_safe_load(str(path), safe_only=True)
    except (
        TypeError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, ImportError,
        OSError, pickle.UnpicklingError,
    ) as error:  # fmt: skip
        reason = str(error).strip().splitlines()[0]
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


def _names(model: DetectionModel) -> dict[int, str]:
    names = model.names
    pairs = names.items() if isinstance(names, dict) else enumerate(names)
    return {int(index): str(name) for index, name in pairs}


def map_channels(model: DetectionModel) -> list[int]:
    """Channels of the three maps that the detection head reads, finest first."""
    return [branch[0].conv.in_channels for branch in model.model[-1].cv2]


def to_input(pictures: np.ndarray, device: torch.device) -> torch.Tensor:
    """uint8 (n, H, W, 3) RGB -> float (n, 3, H, W) in [0, 1], in the quickest memory order."""
    images = torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2)
    return images.float().div_(255).contiguous(memory_format=torch.channels_last)


def average_precision(
    model: DetectionModel, pictures: np.ndarray, boxes: list[np.ndarray], classes: list[np.ndarray]
) -> dict[str, float]:
    """Average precision at an IoU of 0.5 per class, as ultralytics has it; mAP50 is their mean.

    Args:
      pictures: uint8 (n, H, W, 3), H and W multiples of 32.
      boxes: n arrays (m, 4), true boxes, xyxy in pixels.
      classes: n arrays (m,) of class indices.

    Returns:
      AP50 per name of the classes that have true boxes.
    """
    device = next(model.parameters()).device
    hits, scores, predicted, batch = [], [], [], 32
    for start in range(0, len(pictures), batch):
        with torch.inference_mode():
            output, _ = model(to_input(pictures[start : start + batch], device))
        # As ultralytics' validator, but without the time limit behind which it drops pictures.
        found = non_max_suppression(
            output, 0.001, 0.7, multi_label=True, max_time_img=float('inf'), nc=len(model.names)
        )
        for index, detections in enumerate(found, start):
            detections = detections.cpu()
            hits.append(match(detections.numpy(), boxes[index], classes[index]))
            scores.append(detections[:, 4].numpy())
            predicted.append(detections[:, 5].numpy())
    result = ap_per_class(
        np.concatenate(hits)[:, None],
        np.concatenate(scores),
        np.concatenate(predicted),
        np.concatenate(classes),
    )
    return {model.names[int(c)]: float(ap[0]) for c, ap in zip(result[6], result[5])}


def match(detections: np.ndarray, boxes: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Which detections are right: IoU >= 0.5 with a true box of the class that no better one has.

    Args:
      detections: (n, 6) xyxy, score, class; best score first.
      boxes: (m, 4) true boxes, in the same unit.
      classes: (m,) their classes.

    Returns:
      bool (n,).
    """
    right = np.zeros(len(detections), bool)
    if not len(boxes):
        return right
    overlap = box_iou(
        torch.from_numpy(boxes), torch.from_numpy(detections[:, :4])
    ).numpy()  # (m, n)
    overlap = overlap * (classes[:, None] == detections[None, :, 5])
    for index in range(len(detections)):
        best = overlap[:, index].argmax()
        if overlap[best, index] >= 0.5:
            right[index] = True
            overlap[best] = 0.0
    return right
