"""CLIP ViT-B/32 (Radford et al. 2021): pictures, their patches, questions and their words.

As PSTP-Net's inputs are meant: all 50 tokens of a picture go through the last norm and the
projection, token 0 is the picture's vector and the others are its patches'; so do all 77 places of
a text, padded with 0 as OpenAI's tokeniser does, and the place of the end token is the question's
vector. A question is read without its question mark.

This module imports PyTorch, so only processes of the stage `features` may import it.
"""

from collections.abc import Sequence

import numpy as np
import tokenizers
import torch
from transformers import CLIPConfig, CLIPModel

from amuse_jax.errors import StageError, first_line
from amuse_jax.features import catalogue, frames, torch_models
from amuse_jax.features.catalogue import PATCHES, SECONDS, WORDS
from amuse_jax.pretrained import files

MEAN = 0.48145466, 0.4578275, 0.40821073
STD = 0.26862954, 0.26130258, 0.27577711
WIDTH = 512
_TOKENIZER = 'tokenizer.json'


class Pictures:
    """The vectors and the patches of one picture per second of a video.

    Args:
      weights: the public weights, a folder of `save_pretrained` or a hub name.

    Attributes:
      moments: when the pictures are taken, in seconds.
      fit: how they are made square; see `frames.read`.

    Raises:
      StageError: the weights cannot be read, or are those of another model.
    """

    moments = frames.middles(range(SECONDS))
    fit = frames.CROP

    def __init__(self, weights: str):
        self._model = load(weights)

    def __call__(self, pictures: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the tokens of pictures.

        Args:
          pictures: (SECONDS, 224, 224, 3) uint8 RGB.
          mask: (SECONDS,) bool, False where there is no picture.

        Returns:
          'clip_frames' (SECONDS, 512) and 'clip_patches' (SECONDS, 49, 512) float32; 0 where the
          mask is False.
        """
        result = np.zeros((SECONDS, 1 + PATCHES, WIDTH), np.float32)
        if mask.any():
            vision = self._model.vision_model
            with torch.inference_mode():
                tokens = vision(torch_models.to_images(pictures[mask], MEAN, STD)).last_hidden_state
                # The library puts only token 0 through the norm.
                tokens = self._model.visual_projection(vision.post_layernorm(tokens))
            result[mask] = tokens.cpu().numpy()
        return {'clip_frames': result[:, 0], 'clip_patches': result[:, 1:]}


class Questions:
    """The vectors and the words of questions.

    Args:
      weights: the public weights with their `tokenizer.json`, a folder or a hub name.

    Raises:
      StageError: the weights or the tokeniser cannot be read, or are those of another model.
    """

    def __init__(self, weights: str):
        self._model = load(weights)
        self._tokenizer = load_tokenizer(weights)

    def __call__(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Compute the vectors of questions.

        Args:
          texts: n questions.

        Returns:
          'clip_question' (n, 512) and 'clip_words' (n, 77, 512) float32.
        """
        ids, ends = self.encode(texts)
        inputs = torch.tensor(ids, device=torch_models.device())
        with torch.inference_mode():
            words = self._model.text_model(inputs).last_hidden_state
            words = self._model.text_projection(words).cpu().numpy()
        return {'clip_question': words[np.arange(len(ends)), ends], 'clip_words': words}

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids (n, 77) int64 of questions, and the place (n,) of each end token.

        A longer question loses its last words.
        """
        ids, ends = np.zeros((len(texts), WORDS), np.int64), []
        for row, text in zip(ids, texts):
            found = self._tokenizer.encode(without_mark(text)).ids
            found = [*found[: WORDS - 1], found[-1]] if len(found) > WORDS else found
            row[: len(found)] = found
            ends.append(len(found) - 1)
        return ids, np.array(ends, int)


def without_mark(text: str) -> str:
    """Return a question without the mark at its end.

    PSTP-Net drops the last character of every question. In the questions of MUSIC-AVQA this is the
    question mark; in rephrased ones it may be a letter, which is kept here.
    """
    return text if text[-1:].isalnum() else text[:-1]


def load(weights: str) -> CLIPModel:
    """Load CLIP ViT-B/32.

    Raises:
      StageError: the weights cannot be read, or are those of another model.
    """
    # Without a description the library's own sizes are those of ViT-B/32.
    config = CLIPConfig.from_dict(torch_models.description('clip', weights))
    vision = config.vision_config
    sizes = {
        'image_size': (vision.image_size, frames.SIZE),
        'patch_size': (vision.patch_size, 32),
        'projection_dim': (config.projection_dim, WIDTH),
        'max_position_embeddings': (config.text_config.max_position_embeddings, WORDS),
    }
    wrong = [f'its {name} is {a} instead of {b}' for name, (a, b) in sizes.items() if a != b]
    torch_models.refuse_others('clip', weights, [], [], wrong)
    # Older files store the numbers of the positions.
    return torch_models.fill_transformers('clip', weights, CLIPModel, config, r'.*\.position_ids')


def load_tokenizer(weights: str) -> tokenizers.Tokenizer:
    """Load the `tokenizer.json` beside the weights, from the same folder or hub name.

    Raises:
      StageError: there is none, or it cannot be read.
    """
    path = files.beside(weights, _TOKENIZER)
    try:
        if path is None:
            raise ValueError(f'there is no {_TOKENIZER} beside the weights')
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer
    except Exception as error:  # the library raises plain Exception
        raise StageError(
            f'config.features.clip: the words of questions cannot be read with {weights}: '
            f'{first_line(error)}; expected {catalogue.where("clip")}'
        ) from error
