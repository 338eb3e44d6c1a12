"""Separation of a sound into 22 instruments by Universal Source Separation (Kong et al. 2023).

`Classifier` is the first half of it, which finds the instruments and separates nothing.

This module runs the released weights with the package `uss`. The package tags every two seconds of
the sound with AudioSet's 527 classes (Cnn14). If one of an instrument's classes has a probability
of at least 0.2, a network (ResUNet30), conditioned on the probabilities of these classes, separates
the instrument; otherwise the stem of the instrument is exactly zero.

The packages that this module needs import PyTorch, so only a process that does nothing else imports
them.
"""

import _codecs
import functools
import importlib.util
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from amuse_jax.errors import StageError, first_line
from amuse_jax.pretrained import audioset, contents
from amuse_jax.pretrained.tagging import SoundTags
from amuse_jax.system import environment, memory, paths

SAMPLE_RATE = 32000  # Hz, of all networks
SEGMENT_SECONDS = 2.0  # length of the pieces that are tagged and separated
CLASSES = 527

# Names of the published files in a folder of weights.
CHECKPOINT = 'ss_model=resunet30,querynet=at_soft,data=full,devices=8,step=1000000.ckpt'
TAGGER = 'Cnn14_mAP=0.431.pth'
LABELS = 'class_labels_indices.csv'
LABELS_BYTES = 14675  # the package treats a file of another size as a broken download

_SAMPLES = int(SEGMENT_SECONDS * SAMPLE_RATE)
_NAME = 'annotate: universal source separation'
_STEPS = 20  # steps of a classified piece's timeline, which are shorter than a window
_ADVICE = (
    'end other programs on this device, use one with more memory, or only classify the sounds '
    '(--config.sources.stems=uss-tags); then run the same command again to continue'
)


class Classifier:
    """Finds AudioSet's classes in every piece of a sound (Cnn14), and separates nothing.

    Args:
      weights: a folder with TAGGER and LABELS; None: the package's own downloads in ~/.cache.

    Raises:
      StageError: the package is not installed, a file is missing, or a file holds another model.
    """

    def __init__(self, weights: Path | None):
        _import_package(weights)
        import torch
        from uss.utils import load_pretrained_panns

        self.device = 'cuda' if torch.cuda.is_available() else 'cpu'
        (path,) = _weight_files(weights, (TAGGER,))
        self.state = _read(path, 'model')
        self._model = load_pretrained_panns('Cnn14', checkpoint_path='', freeze=True)
        _load(self._model, self.state, path)
        with memory.shortage_as_error(_NAME, _ADVICE):
            self._model.to(self.device)

    def probabilities(self, waveform: np.ndarray) -> np.ndarray:
        """Return the probability of each class in each piece of SEGMENT_SECONDS.

        Args:
          waveform: (samples,) float32 at SAMPLE_RATE.

        Returns:
          (pieces, 527) float32; the last piece is padded with silence.
        """
        from uss import inference

        with memory.shortage_as_error(_NAME, _ADVICE):
            return inference.calculate_segment_at_probs(
                audio=waveform, segment_samples=_SAMPLES, at_model=self._model, device=self.device
            )

    def __call__(self, waveform: np.ndarray) -> SoundTags:
        """Return the classes of a sound, (samples,) float32 at SAMPLE_RATE."""
        pieces = self.probabilities(waveform)
        steps = -(-len(waveform) * _STEPS // _SAMPLES)  # without the silence behind the sound
        return SoundTags(
            pieces.mean(0), np.repeat(pieces, _STEPS, 0)[:steps], SEGMENT_SECONDS / _STEPS
        )


class Separator:
    """Separates a mixture into one stem per instrument.

    Args:
      weights: a folder with CHECKPOINT, TAGGER and LABELS; None: the package's own downloads in
        ~/.cache.

    Raises:
      StageError: the package is not installed, a file is missing, or a file holds another model.
    """

    def __init__(self, weights: Path | None):
        self._classifier = Classifier(weights)
        from uss import config
        from uss.models.pl_modules import LitSeparation
        from uss.models.query_nets import Cnn14_Wrapper
        from uss.models.resunet import ResUNet30

        (checkpoint,) = _weight_files(weights, (CHECKPOINT,))
        self._classes = audioset.class_indices(config.LB_TO_IX)
        query = Cnn14_Wrapper(bottleneck_type='at_soft', base_checkpoint_path='', freeze_base=True)
        network = ResUNet30(input_channels=1, output_channels=1, condition_size=CLASSES)
        state = _read(checkpoint, 'state_dict')
        base = _add_prefix('base.', self._classifier.state)
        query_state = _strip_prefix('query_net.', state) or base
        _load(query, query_state, checkpoint)
        _load(network, _strip_prefix('ss_model.', state), checkpoint)
        model = LitSeparation(
            ss_model=network,
            query_net=query,
            anchor_segment_detector=None,
            anchor_segment_mixer=None,
            loss_function=None,
            optimizer_type=None,
            learning_rate=None,
            lr_lambda_func=None,
        )
        with memory.shortage_as_error(_NAME, _ADVICE):
            self._model = model.to(self._classifier.device)

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        """Separate a sound into stems.

        Args:
          waveform: (samples,) float32 at SAMPLE_RATE.

        Returns:
          (samples, 22) float32, one stem for each instrument, in the order of INSTRUMENTS.
        """
        probabilities = self._classifier.probabilities(waveform)
        stems = {  # bassoon and suona have the same classes
            classes: self._separate(waveform, probabilities, classes)
            for classes in set(self._classes)
        }
        return np.stack([stems[classes] for classes in self._classes], axis=1)

    def _separate(
        self, waveform: np.ndarray, probabilities: np.ndarray, classes: Sequence[int]
    ) -> np.ndarray:
        """Separate what belongs to some classes from the pieces in which one of them is heard."""
        from uss import inference

        with memory.shortage_as_error(_NAME, _ADVICE):
            stem = inference.separate_by_query_conditions(
                audio=waveform,
                segment_samples=_SAMPLES,
                at_probs=probabilities,
                subclass_indexes=list(classes),
                pl_model=self._model,
                device=self._classifier.device,
            )
        return stem.astype(np.float32)

    def seconds_per_piece(self) -> tuple[float, float]:
        """Measure how long a piece takes to classify, and to separate one instrument from.

        On a GPU the first, slow call is not counted.
        """
        pieces = 1 if self._classifier.device == 'cpu' else 8  # 8 is the batch of the package
        sound = np.random.default_rng(0).normal(0, 0.1, pieces * _SAMPLES).astype(np.float32)
        heard = np.ones((pieces, CLASSES), np.float32)
        for _ in range(1 if pieces == 1 else 2):
            began = time.monotonic()
            self._classifier.probabilities(sound)
            classified = time.monotonic()
            self._separate(sound, heard, self._classes[0])
            separated = time.monotonic()
        return (classified - began) / pieces, (separated - classified) / pieces


@functools.cache
def load_classifier(weights: str) -> Classifier:
    """Load the classifier once for each process; arguments and errors are those of `load`."""
    return Classifier(_folder(weights))


@functools.cache
def load(weights: str) -> Separator:
    """Load the separator once for each process.

    Args:
      weights: a folder, as in config.sources.weights; '': the package's own downloads.

    Raises:
      StageError: see Separator.
    """
    return Separator(_folder(weights))


def check(weights: str, *, only_classify: bool = False) -> None:
    """Check that the package is installed and the files in `weights` are whole files of weights.

    They are not loaded.

    Args:
      weights: as for `load`.
      only_classify: whether only a `Classifier` will be loaded.

    Raises:
      StageError: the package is missing, or a file is missing, empty, cut short or of another
        kind.
    """
    _require_package()
    names = (TAGGER,) if only_classify else (CHECKPOINT, TAGGER)
    for path in _weight_files(_folder(weights), names) if weights else ():
        contents.check_kind(path)


def _folder(weights: str) -> Path | None:
    """Return the folder that config.sources.weights names, or None for the package's downloads."""
    return paths.from_user(weights, 'config.sources.weights') if weights else None


def _import_package(weights: Path | None) -> None:
    """Import `uss`, with everything where it looks for it."""
    _require_package()
    environment.ignore_matplotlib()  # the package imports it
    _place_labels(weights)
    import uss.config  # noqa: F401


def _require_package() -> None:
    if importlib.util.find_spec('uss') is None:
        raise StageError(
            "config.sources.stems is 'uss' or 'uss-tags', but the package uss is not installed; "
            "run pip install '.[uss]', or set config.sources.stems to 'tags', or to 'truth' if the "
            'performances are rendered'
        )


def _place_labels(weights: Path | None) -> None:
    """Copy LABELS to the places where `uss` and `panns_inference` read it during their import.

    If the file is missing, both packages call wget. The address in `uss` no longer exists, so the
    download leaves an empty file, on which `uss` fails.
    """
    places = (
        Path.home() / '.cache' / 'uss' / 'metadata' / LABELS,
        Path.home() / 'panns_data' / LABELS,
    )
    candidates = (*places, weights / LABELS) if weights else places
    found = _first_complete(candidates)
    if found is None and weights is None:
        places[1].unlink(missing_ok=True)  # an empty file of a failed download would stay
        import panns_inference  # noqa: F401  downloads it to places[1]

        found = _first_complete(places)
    if found is None:
        wanted = weights or places[0].parent
        raise StageError(
            f"the source separation needs AudioSet's {LABELS} ({LABELS_BYTES} bytes) in {wanted}, "
            'but it is not there and could not be downloaded; download it and put it there'
        )
    for place in places:
        if _first_complete((place,)) is None:
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(found, place)


def _first_complete(candidates: tuple[Path, ...]) -> Path | None:
    complete = [p for p in candidates if p.is_file() and p.stat().st_size == LABELS_BYTES]
    return complete[0] if complete else None


def _weight_files(weights: Path | None, names: Sequence[str]) -> list[Path]:
    """Return the paths of the named files, CHECKPOINT or TAGGER."""
    if weights is not None:
        for name in names:
            if not (weights / name).is_file():
                raise StageError(
                    f'config.sources.weights is {weights}, which has no file {name}; '
                    f'expected a folder with {CHECKPOINT}, {TAGGER} and {LABELS}'
                )
        return [weights / name for name in names]
    from uss.config import panns_paths_dict
    from uss.uss_inference import model_paths_dict
    from uss.utils import get_path

    published = {
        CHECKPOINT: model_paths_dict['at_soft']['checkpoint'],
        TAGGER: panns_paths_dict['Cnn14'],
    }
    paths = []
    for meta in map(published.get, names):
        path = Path(get_path(meta))
        size = path.stat().st_size if path.exists() else 0
        if size != meta['size']:
            raise StageError(
                f'the weights of the source separation could not be downloaded: {path} has {size} '
                f'bytes, expected {meta["size"]}; download {meta["remote_path"]} and put it there, '
                'or set config.sources.weights to a folder that holds it'
            )
        paths.append(path)
    return paths


def _read(path: Path, key: str) -> dict:
    """Read the weights under `key` in a published file, without running any code from the file."""
    from pickle import UnpicklingError  # noqa: TID251, raised by PyTorch's safe load

    import torch

    # Apart from the weights, the files of PANNs hold NumPy arrays: the state of the sampler.
    reconstruct = np.empty(0).__reduce__()[0]
    arrays = [np.ndarray, np.dtype, _codecs.encode, *map(type, map(np.dtype, '?ilqfd'))]
    arrays += [
        (reconstruct, f'{module}.multiarray._reconstruct') for module in contents.NUMPY_CORES
    ]
    try:
        with torch.serialization.safe_globals(arrays):
            content = torch.load(path, map_location='cpu', weights_only=True)
        return content[key]
    except (UnpicklingError, RuntimeError, EOFError, KeyError, TypeError) as error:
        raise StageError(
            f'{path} cannot be read as the published weights ({first_line(error)}); '
            'download it again'
        ) from error


def _strip_prefix(prefix: str, state: dict) -> dict:
    return {
        name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
    }


def _add_prefix(prefix: str, state: dict) -> dict:
    return {prefix + name: value for name, value in state.items()}


def _load(module, state: dict, path: Path) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise StageError(
            f'{path} holds the weights of another model than {type(module).__name__}: '
            + ' '.join(str(error).split())[:300]
        ) from error
