"""VGGish (Hershey et al. 2017): a vector of 128 numbers for each second of sound.

The network and its front end are those of the TF-slim release, whose weights the public PyTorch
conversion has. As in AVST's extraction, each second is transformed alone, its first 96 frames are
taken, and the vectors are the network's own, without the PCA and the 8 bits of AudioSet's.

This module imports PyTorch, so only processes of the stage `features` may import it.
"""

import numpy as np
import torch
from torch import nn

from amuse_jax.features import fbank, torch_models
from amuse_jax.features.catalogue import SECONDS, has_begun

FRAMES, BANDS = 96, 64
_LOWEST_HZ, _HIGHEST_HZ = 125.0, 7500.0
_OFFSET = 0.01  # added to the mel spectrum before the logarithm
_CHANNELS = ((64,), (128,), (256, 256), (512, 512))  # of the convolutions before each pooling


class VGGish(nn.Module):
    """The network; its names are those of the public conversion."""

    def __init__(self):
        super().__init__()
        layers, width = [], 1
        for group in _CHANNELS:
            for channels in group:
                layers += [nn.Conv2d(width, channels, 3, padding=1), nn.ReLU()]
                width = channels
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        numbers = width * (FRAMES // 16) * (BANDS // 16)
        self.embeddings = nn.Sequential(
            nn.Linear(numbers, 4096), nn.ReLU(),
            nn.Linear(4096, 4096), nn.ReLU(),
            nn.Linear(4096, 128), nn.ReLU(),
        )  # fmt: skip

    def forward(self, log_mels: torch.Tensor) -> torch.Tensor:
        """Compute the vectors (n, 128) of log-mels (n, FRAMES, BANDS)."""
        maps = self.features(log_mels[:, None])
        return self.embeddings(maps.permute(0, 2, 3, 1).flatten(1))  # TensorFlow's order


class Seconds:
    """The vectors of all seconds of a sound.

    Args:
      weights: the public weights, a file or a folder.

    Attributes:
      sample_rate: sample rate of the sound, in Hz.

    Raises:
      StageError: the weights cannot be read, or are those of another model.
    """

    sample_rate = fbank.SAMPLE_RATE

    def __init__(self, weights: str):
        with torch.device('meta'):  # no time for random weights
            model = VGGish()
        self._model = torch_models.fill('vggish', weights, model.to_empty(device='cpu'))

    def __call__(self, samples: np.ndarray, seconds: float) -> dict[str, np.ndarray]:
        """Compute the vectors of a sound.

        Args:
          samples: (60 * 16000,) float32, full scale at 1.
          seconds: length of the sound; samples after it are padding.

        Returns:
          'vggish' (SECONDS, 128) float32; 0 for seconds that begin after the end.
        """
        result = np.zeros((SECONDS, 128), np.float32)
        count = int(has_begun(np.arange(SECONDS), seconds).sum())
        log_mels = np.stack(
            [log_mel(each) for each in samples.reshape(SECONDS, -1)[:count]]
        )  # (count, FRAMES, BANDS)
        inputs = torch.tensor(log_mels, dtype=torch.float32, device=torch_models.device())
        with torch.inference_mode():
            result[:count] = self._model(inputs).cpu().numpy()
        return {'vggish': result}


def log_mel(samples: np.ndarray) -> np.ndarray:
    """Compute VGGish's input from one second of sound.

    Frames of 25 ms every 10 ms under a periodic Hann window, the magnitude spectrum, 64 triangles
    from 125 to 7500 Hz, and the natural logarithm with an offset of 0.01.

    Args:
      samples: (16000,) float, full scale at 1.

    Returns:
      (FRAMES, BANDS) float64.
    """
    window = np.hanning(fbank.FRAME + 1)[:-1]
    spectrum = np.abs(np.fft.rfft(fbank.frames(samples)[:FRAMES] * window, fbank.FFT))
    return np.log(spectrum @ fbank.mel_filters(BANDS, _LOWEST_HZ, _HIGHEST_HZ) + _OFFSET)
