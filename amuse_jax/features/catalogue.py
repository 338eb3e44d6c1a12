"""The arrays that the stage `features` can make: their shapes, and the public files they need.

Every array has one row per record, or one per distinct question. A video has 60 seconds and 10
steps of 6 seconds, whatever the settings in `data` are, because the published systems are built for
this.
"""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np
from ml_collections import ConfigDict

from amuse_jax.errors import StageError

SECONDS = 60  # of a video
STEPS = 10
STEP_SECONDS = SECONDS // STEPS

AST_ROWS, AST_COLUMNS = 12, 59  # of patches that see the 6 seconds of a step
_PADDING_SECONDS = 0.1
MAP_SIDE, PATCHES, WORDS = 14, 49, 77


@dataclasses.dataclass(frozen=True)
class Weights:
    """The weights of a network.

    Attributes:
      network: what the network is called.
      file: the public file, or name on the Hugging Face hub.
      place: where it is published.
    """

    network: str
    file: str
    place: str


@dataclasses.dataclass(frozen=True)
class Extractor:
    """What computes some of the arrays from one video or one question.

    Attributes:
      name: its name; the folder of its shards.
      reads: 'sound', 'picture' or 'question'.
      shapes: the shape of a row of each of its arrays, by the array's name.
      weights: the setting in `features` that names its weights; '' if it needs none.
      packages: the packages that it needs beside those of every installation.
      cpu_seconds: seconds that one CPU takes for a minute of 640x360 pixels, measured once; 0 for
        questions, which are few.
      read_seconds: the part of them that is left with a GPU: decoding, and spectra.
    """

    name: str
    reads: str
    shapes: dict[str, tuple[int, ...]]
    weights: str = ''
    packages: tuple[str, ...] = ()
    cpu_seconds: float = 0.0
    read_seconds: float = 0.0


# By setting in the config's section `features`.
WEIGHTS = {
    'vggish': Weights('VGGish', 'vggish-10086976.pth', 'harritaylor/torchvggish on GitHub'),
    'resnet18': Weights(
        'ResNet-18', 'resnet18-5c106cde.pth or resnet18-f37072fd.pth', "torchvision's model zoo"
    ),
    'clip': Weights(
        'CLIP ViT-B/32', 'openai/clip-vit-base-patch32', 'the Hugging Face hub under this name'
    ),
    'ast': Weights(
        'the Audio Spectrogram Transformer',
        'MIT/ast-finetuned-audioset-10-10-0.4593',
        'the Hugging Face hub under this name',
    ),
}
EXTRACTORS = (
    Extractor('vggish', 'sound', {'vggish': (SECONDS, 128)}, 'vggish', ('torch',), 3.6, 0.3),
    Extractor(
        'resnet18',
        'picture',
        {'resnet18': (STEPS, MAP_SIDE, MAP_SIDE, 512)},
        weights='resnet18',
        packages=('torch', 'torchvision'),
        cpu_seconds=1.5,
        read_seconds=0.4,
    ),
    Extractor(
        'clip_pictures',
        'picture',
        {'clip_frames': (SECONDS, 512), 'clip_patches': (SECONDS, PATCHES, 512)},
        weights='clip',
        packages=('torch', 'transformers'),
        cpu_seconds=13.1,
        read_seconds=1.2,
    ),
    Extractor(
        'clip_questions',
        'question',
        {'clip_question': (512,), 'clip_words': (WORDS, 512)},
        weights='clip',
        packages=('torch', 'transformers'),
    ),
    Extractor('fbank', 'sound', {'fbank': (STEPS, 192, 192)}, cpu_seconds=0.2, read_seconds=0.2),
    Extractor(
        'log_mel',
        'sound',
        {'log_mel_seconds': (STEPS, 1001, 64)},
        cpu_seconds=0.9,
        read_seconds=0.9,
    ),
    Extractor(
        'ast',
        'sound',
        {'ast': (STEPS, AST_ROWS * AST_COLUMNS, 768)},
        weights='ast',
        packages=('torch', 'transformers'),
        cpu_seconds=63.0,
        read_seconds=0.3,
    ),
)
ARRAYS = tuple(name for extractor in EXTRACTORS for name in extractor.shapes)
QUESTIONS = 'questions'  # the texts of the questions, in the order of their arrays: a JSON list
EXISTING = 'seconds'  # the array that says which seconds a video has


def chosen(arrays: Iterable[str]) -> list[Extractor]:
    """Return the extractors of some arrays; each has the shapes of the wanted arrays only."""
    wanted = set(arrays)
    found = []
    for extractor in EXTRACTORS:
        shapes = {name: shape for name, shape in extractor.shapes.items() if name in wanted}
        if shapes:
            found.append(dataclasses.replace(extractor, shapes=shapes))
    return found


def has_begun(begins: np.ndarray, seconds: float | np.ndarray) -> np.ndarray:
    """Return which seconds or steps a sound has: the first, and those that begin before its end.

    Encoders fill the last packet up with silence, which makes a sound up to 0.1 s longer.

    Args:
      begins: where they begin, in seconds.
      seconds: length of the sound, or of several sounds.

    Returns:
      bool, of the shape to which the arguments broadcast.
    """
    return (begins == 0) | (begins < seconds - _PADDING_SECONDS)


def missing_weights(config: ConfigDict) -> list[str]:
    """Return one sentence for each file that the config's arrays need and the config does not name.

    Args:
      config: the whole config; `features` is read.
    """
    users: dict[str, list[str]] = {}
    for extractor in chosen(config.features.arrays):
        if extractor.weights and not config.features[extractor.weights]:
            users.setdefault(extractor.weights, []).extend(extractor.shapes)
    return [f'{", ".join(names)} {_needs(names)} {where(name)}' for name, names in users.items()]


def where(name: str) -> str:
    """Return a phrase that says which file has some weights, who publishes it, and how to name it.

    Args:
      name: a key of WEIGHTS.
    """
    weights = WEIGHTS[name]
    value = 'NAME, or to a folder with its files' if '/' in weights.file else 'FILE'
    return (
        f'the weights of {weights.network}: {weights.file}, published at {weights.place}; set '
        f'--config.features.{name}={value}'
    )


@contextlib.contextmanager
def published_in_message(name: str) -> Iterator[None]:
    """Add to the error of a file that cannot be read which file is meant, and who publishes it.

    Args:
      name: a key of WEIGHTS.

    Raises:
      StageError: the file cannot be read.
    """
    try:
        yield
    except StageError as error:
        raise StageError(
            f'config.features.{name}: {error}. This setting names {where(name)}'
        ) from error


def _needs(names: list[str]) -> str:
    return 'needs' if len(names) == 1 else 'need'
