"""The Audio Spectrogram Transformer (Gong et al. 2021): a map of tokens for each step of 6 seconds.

LAST-Att takes its tokens; which ones, and of which windows, was never published. Here the sound of
a step is padded to the 10.24 s that the network takes, as its own front end does. Of its 12 rows
and 101 columns of patches those are kept that see the step's sound, 59 columns; the two class
tokens are left out.

This module imports PyTorch, so only processes of the stage `features` may import it.
"""

import numpy as np
import torch
from transformers import ASTConfig, ASTModel

from amuse_jax.features import fbank, torch_models
from amuse_jax.features.catalogue import AST_COLUMNS, AST_ROWS, STEP_SECONDS, STEPS, has_begun

BANDS, FRAMES, WIDTH = 128, 1024, 768
_MEAN, _DEVIATION = -4.2677393, 4.5689974  # of AudioSet's filter banks
_CLASS_TOKENS = 2


class Steps:
    """The tokens of all steps of a sound.

    Args:
      weights: the public weights, a folder of `save_pretrained` or a hub name.

    Attributes:
      sample_rate: sample rate of the sound, in Hz.

    Raises:
      StageError: the weights cannot be read, or are those of another model.
    """

    sample_rate = fbank.SAMPLE_RATE

    def __init__(self, weights: str):
        self._model = load(weights)

    def __call__(self, samples: np.ndarray, seconds: float) -> dict[str, np.ndarray]:
        """Compute the tokens of a sound.

        Args:
          samples: (60 * 16000,) float32, full scale at 1.
          seconds: length of the sound; samples after it are padding.

        Returns:
          'ast' (STEPS, 12 * 59, 768) float32, rows from low to high frequencies; 0 for steps that
          begin after the end.
        """
        result = np.zeros((STEPS, AST_ROWS * AST_COLUMNS, WIDTH), np.float32)
        samples = fbank.without_padding(samples, seconds)
        length = STEP_SECONDS * self.sample_rate
        count = int(has_begun(np.arange(STEPS) * STEP_SECONDS, seconds).sum())
        steps = [samples[step * length :][:length] for step in range(count)]
        inputs = torch.tensor(np.stack([front_end(each) for each in steps]))
        with torch.inference_mode():
            tokens = self._model(inputs.to(torch_models.device())).last_hidden_state
        maps = tokens[:, _CLASS_TOKENS:].unflatten(1, (AST_ROWS, -1))[:, :, :AST_COLUMNS]
        result[:count] = maps.flatten(1, 2).cpu().numpy()
        return {'ast': result}


def front_end(samples: np.ndarray) -> np.ndarray:
    """Compute the network's input: kaldi's filter banks, padded with 0 and then normalised.

    Args:
      samples: (n,) float at 16 kHz, full scale at 1; at most 10.24 s.

    Returns:
      (FRAMES, BANDS) float32.
    """
    padded = np.zeros((FRAMES, BANDS), np.float32)
    found = fbank.kaldi(samples, BANDS)
    padded[: len(found)] = found
    return (padded - np.float32(_MEAN)) / np.float32(2 * _DEVIATION)


def load(weights: str) -> ASTModel:
    """Load the Audio Spectrogram Transformer without its classifier.

    Raises:
      StageError: the weights cannot be read, or are those of another model.
    """
    # Without a description the library's own sizes are those of the public model.
    config = ASTConfig.from_dict(torch_models.description('ast', weights))
    sizes = {
        'hidden_size': (config.hidden_size, WIDTH),
        'num_mel_bins': (config.num_mel_bins, BANDS),
        'max_length': (config.max_length, FRAMES),
        'patch_size': (config.patch_size, 16),
        'time_stride': (config.time_stride, 10),
        'frequency_stride': (config.frequency_stride, 10),
    }
    wrong = [f'its {name} is {a} instead of {b}' for name, (a, b) in sizes.items() if a != b]
    torch_models.refuse_others('ast', weights, [], [], wrong)
    return torch_models.fill_transformers('ast', weights, ASTModel, config, r'classifier\..*')
