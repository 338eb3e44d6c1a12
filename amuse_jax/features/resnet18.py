"""ResNet-18 (He et al. 2016) without the stride of its last stage: maps of 14 x 14 for AVST.

As in AVST's extraction: one picture each of the seconds 0, 6, ..., 54, stretched to 224 x 224,
normalised with the mean and deviation of Kinetics (the weights are ImageNet's), and the output of
the last stage before pooling. AVST's extraction makes 60 maps, of which its loader takes these ten.

This module imports PyTorch, so only processes of the stage `features` may import it.
"""

import numpy as np
import torch
from torchvision import models

from amuse_jax.features import frames, torch_models
from amuse_jax.features.catalogue import MAP_SIDE, STEP_SECONDS, STEPS

MEAN = 0.43216, 0.394666, 0.37645
STD = 0.22803, 0.22145, 0.216989


class Maps:
    """The maps of ten pictures of a video.

    Args:
      weights: torchvision's weights of ResNet-18 with its classifier, a file or a folder.

    Attributes:
      moments: when the pictures are taken, in seconds.
      fit: how they are made square; see `frames.read`.

    Raises:
      StageError: the weights cannot be read, or are those of another model.
    """

    moments = frames.middles(range(0, STEPS * STEP_SECONDS, STEP_SECONDS))
    fit = frames.STRETCH

    def __init__(self, weights: str):
        model = models.resnet18()
        for layer in (model.layer4[0].conv1, model.layer4[0].downsample[0]):
            layer.stride = 1, 1
        # Older files have no counters of the batches that the norms have seen.
        filled = torch_models.fill('resnet18', weights, model, r'.*num_batches_tracked')
        self._model = torch.nn.Sequential(*list(filled.children())[:-2])  # no pooling, no classes

    def __call__(self, pictures: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the maps of pictures.

        Args:
          pictures: (STEPS, 224, 224, 3) uint8 RGB.
          mask: (STEPS,) bool, False where there is no picture.

        Returns:
          'resnet18' (STEPS, 14, 14, 512) float32; 0 where the mask is False.
        """
        result = np.zeros((STEPS, MAP_SIDE, MAP_SIDE, 512), np.float32)
        if mask.any():
            with torch.inference_mode():
                maps = self._model(torch_models.to_images(pictures[mask], MEAN, STD))
            result[mask] = maps.permute(0, 2, 3, 1).cpu().numpy()
        return {'resnet18': result}
