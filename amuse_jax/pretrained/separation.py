"""Separation of a sound into 22 instruments by Universal Source Separation (Kong et al. 2023).

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
from pathlib import Path

import numpy as np

from amuse_jax.errors import StageError
from amuse_jax.pretrained import audioset
from amuse_jax.system import paths

SAMPLE_RATE = 32000  # Hz, of all networks
SEGMENT_SECONDS = 2.0  # length of the pieces that are tagged and separated
CLASSES = 527

# Names of the published files in a folder of weights.
CHECKPOINT = 'ss_model=resunet30,querynet=at_soft,data=full,devices=8,step=1000000.ckpt'
TAGGER = 'Cnn14_mAP=0.431.pth'
LABELS = 'class_labels_indices.csv'
LABELS_BYTES = 14675  # the package treats a file of another size as a broken download


class Separator:
    """Separates a mixture into one stem per instrument.

    Args:
      weights: a folder with CHECKPOINT, TAGGER and LABELS; None: the package's own downloads in
        ~/.cache.

    Raises:
      StageError: the package is not installed, a file is missing, or a file holds another model.
    """

    def __init__(self, weights: Path | None):
        _require_package()
        _place_labels(weights)
        import torch
        from uss import config
        from uss.models.pl_modules import LitSeparation
        from uss.models.query_nets import Cnn14_Wrapper
        from uss.models.resunet import ResUNet30
        from uss.utils import load_pretrained_panns

        checkpoint, tagger = _weight_files(weights)
        self._device = 'cuda' if torch.cuda.is_available() else 'cpu'
        self._classes = audioset.class_indices(config.LB_TO_IX)
        self._tagger = load_pretrained_panns('Cnn14', checkpoint_path='', freeze=True)
        query = Cnn14_Wrapper(bottleneck_type='at_soft', base_checkpoint_path='', freeze_base=True)
        network = ResUNet30(input_channels=1, output_channels=1, condition_size=CLASSES)
        tagger_state = _read(tagger, 'model')
        state = _read(checkpoint, 'state_dict')
        query_state = _strip_prefix('query_net.', state) or _add_prefix('base.', tagger_state)
        _load(self._tagger, tagger_state, tagger)
        _load(query, query_state, checkpoint)
        _load(network, _strip_prefix('ss_model.', state), checkpoint)
        self._model = LitSeparation(
            ss_model=network,
            query_net=query,
            anchor_segment_detector=None,
            anchor_segment_mixer=None,
            loss_function=None,
            optimizer_type=None,
            learning_rate=None,
            lr_lambda_func=None,
        ).to(self._device)
        self._tagger.to(self._device)

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        """Separate a sound into stems.

        Args:
          waveform: (samples,) float32 at SAMPLE_RATE.

        Returns:
          (samples, 22) float32, one stem for each instrument, in the order of INSTRUMENTS.
        """
        from uss import inference

        samples = int(SEGMENT_SECONDS * SAMPLE_RATE)
        probabilities = inference.calculate_segment_at_probs(
            audio=waveform, segment_samples=samples, at_model=self._tagger, device=self._device
        )
        stems = {}
        for classes in set(self._classes):  # bassoon and suona have the same classes
            stems[classes] = inference.separate_by_query_conditions(
                audio=waveform,
                segment_samples=samples,
                at_probs=probabilities,
                subclass_indexes=list(classes),
                pl_model=self._model,
                device=self._device,
            ).astype(np.float32)
        return np.stack([stems[classes] for classes in self._classes], axis=1)


@functools.cache
def load(weights: str) -> Separator:
    """Load the separator once for each process.

    Args:
      weights: a folder, as in config.sources.weights; '': the package's own downloads.

    Raises:
      StageError: see Separator.
    """
    return Separator(paths.from_user(weights, 'config.sources.weights') if weights else None)


def check(weights: str) -> None:
    """Check that the package is installed and the files in `weights` exist, without loading them.

    Raises:
      StageError: the package or a file is missing.
    """
    _require_package()
    if weights:
        _weight_files(paths.from_user(weights, 'config.sources.weights'))


def _require_package() -> None:
    if importlib.util.find_spec('uss') is None:
        raise StageError(
            "config.sources.stems is 'uss', but the package uss is not installed; run "
            "pip install '.[uss]', or set config.sources.stems to 'tags', or to 'truth' if the "
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


def _weight_files(weights: Path | None) -> tuple[Path, Path]:
    """Return the paths of the checkpoint and the tagger."""
    if weights is not None:
        for name in (CHECKPOINT, TAGGER):
            if not (weights / name).is_file():
                raise StageError(
                    f'config.sources.weights is {weights}, which has no file {name}; '
                    f'expected a folder with {CHECKPOINT}, {TAGGER} and {LABELS}'
                )
        return weights / CHECKPOINT, weights / TAGGER
    from uss.config import panns_paths_dict
    from uss.uss_inference import model_paths_dict
    from uss.utils import get_path

    paths = []
    for meta in (model_paths_dict['at_soft']['checkpoint'], panns_paths_dict['Cnn14']):
        path = Path(get_path(meta))
        size = path.stat().st_size if path.exists() else 0
        if size != meta['size']:
            raise StageError(
                f'the weights of the source separation could not be downloaded: {path} has {size} '
                f'bytes, expected {meta["size"]}; download {meta["remote_path"]} and put it there, '
                'or set config.sources.weights to a folder that holds it'
            )
        paths.append(path)
    return paths[0], paths[1]


def _read(path: Path, key: str) -> dict:
    """Read the weights under `key` in a published file, without running any code from the file."""
    from pickle import UnpicklingError  # noqa: TID251, raised by PyTorch's safe load

    import torch

    # Apart from the weights, the files of PANNs hold NumPy arrays: the state of the sampler.
    reconstruct = np.empty(0).__reduce__()[0]
    arrays = [np.ndarray, np.dtype, _codecs.encode, *map(type, map(np.dtype, '?ilqfd'))]
    arrays += [(reconstruct, f'{module}.multiarray._reconstruct') for module in _NUMPY_CORES]
    try:
        with torch.serialization.safe_globals(arrays):
            content = torch.load(path, map_location='cpu', weights_only=True)
        return content[key]
    except (UnpicklingError, RuntimeError, EOFError, KeyError, TypeError) as error:
        raise StageError(
            f'{path} cannot be read as the published weights ({str(error).splitlines()[0]}); '
            'download it again'
        ) from error


_NUMPY_CORES = ('numpy.core', 'numpy._core')  # before NumPy 2, and since


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
