"""A trained model that watches videos and answers questions about them."""

import concurrent.futures
import contextlib
import functools
import operator
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from huggingface_hub import ModelHubMixin

from amuse_jax.ask import exported, hub, loading, video_model
from amuse_jax.ask.trained import Trained
from amuse_jax.ask.video import Video
from amuse_jax.data import video_arrays
from amuse_jax.data.tokenizer import QuestionTokenizer
from amuse_jax.errors import StageError, VideoError
from amuse_jax.media import guarded
from amuse_jax.media.log_mel import LogMel
from amuse_jax.media.video import MediaError
from amuse_jax.models import building, platform
from amuse_jax.models.amuse import Amuse, AmuseInputs, AmuseOutput
from amuse_jax.regions.process import RegionProcess
from amuse_jax.system import environment, paths, xla
from amuse_jax.system.processes import Process
from amuse_jax.training import state

# Questions are answered in groups of these sizes, so that few programs are compiled.
GROUPS = (1, 4)
# The steps of `Model.watch`: decoding, the pretrained encoder of rhythm and sources, and the
# regions and towers.
WATCH_STEPS = ('reading', 'listening', 'looking')
# The dtypes of the arrays of the rois stage.
_REGION_DTYPES = {
    'boxes': 'float16',
    'classes': 'int16',
    'scores': 'float16',
    'features': 'float16',
}


def load(
    source: str | Path, revision: str | None = None, process: Process | None = None
) -> 'Model':
    """Load a trained model; see `amuse_jax.load`.

    JAX gets a cache of compiled programs, if it has none, and takes the memory of GPUs only as it
    needs it, if it has not started yet.

    Args:
      source, revision: see `amuse_jax.load`.
      process: a process for the detector, from `regions.process.start_early`; None to start one
        with the first video that needs it.
    """
    _prepare_jax()
    return Model(loading.read(str(source), revision), process)


def _prepare_jax() -> None:
    environment.wait_passively()
    xla.set_environment(shares_gpus=True)
    xla.enable_compilation_cache()


class Model(ModelHubMixin, library_name='amuse_jax'):
    """A trained model; `amuse_jax.load` makes it.

    It is a context manager, which ends the process of its detector. Several threads may use it.
    `push_to_hub('USER/NAME')` and `from_pretrained` are those of huggingface_hub.ModelHubMixin.

    Attributes:
      trained: the model's parts and the settings that it was made with.
      streams: names of the streams of `Answer.importance`.
      tokenizer: its tokenizer.
    """

    _hub_mixin_config: dict = {}  # the mixin would make one from a copy of all arrays

    def __init__(self, trained: Trained, process: Process | None = None):
        self.trained, self._process = trained, process
        config = trained.config
        self.streams: tuple[str, ...] = trained.amuse.streams
        self.tokenizer = QuestionTokenizer(config.model.text)
        self._log_mel = LogMel.from_settings(config)
        self._limits = guarded.Limits.from_settings(config.data)
        self._is_open = config.train.epochs > 0
        self._precision = platform.matmul_precision(config.model.dtype)
        self._finder: RegionProcess | None = None
        self._lock = threading.Lock()
        self._is_compiled = False
        amuse, self._amuse_arrays = state.flatten(trained.amuse)
        encoder, self._encoder_arrays = state.flatten(trained.encoder)
        # As in training: where a lower level compiles faster, so do these programs.
        options = building.compiler_options(config.loop.optimization_level)
        jit = functools.partial(jax.jit, compiler_options=options)
        self._encode = jit(
            lambda arrays, *inputs: video_model.encode(encoder.merge(arrays), *inputs)
        )
        self._see = jit(
            lambda arrays, *inputs: video_model.see(
                amuse.merge(arrays), *inputs, is_open=self._is_open
            )
        )
        self._answer = jit(lambda arrays, inputs: _answer(amuse.merge(arrays), inputs))

    def __enter__(self) -> 'Model':
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def save_pretrained(self, save_directory: str | Path, **options) -> str | None:
        """Write the model to a folder that `amuse_jax.load` reads on any machine.

        Args:
          save_directory: a folder that does not exist or is empty.
          **options: see ModelHubMixin.save_pretrained.

        Raises:
          StageError: the folder holds something, or the detector's packages are not installed.
        """
        folder = paths.from_user(str(save_directory), 'the folder')
        exported.refuse_used(folder)  # the mixin would delete a config.json
        return super().save_pretrained(folder, **options)

    def _save_pretrained(self, save_directory: Path) -> None:
        exported.write(self.trained, save_directory)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, revision: str | None, **options) -> 'Model':
        _prepare_jax()
        if Path(model_id).is_dir():
            return cls(exported.read(Path(model_id)))
        known = ('cache_dir', 'force_download', 'local_files_only', 'token')
        options = {name: options[name] for name in known}
        return cls(exported.read(hub.download(model_id, revision, **options)))

    def close(self) -> None:
        """End the process of the detector. The next video that needs it starts another one."""
        with self._lock:
            if self._finder is not None:
                self._finder.close()
            if self._process is not None:
                self._process.end()
            self._finder = self._process = None

    def start_detector(self) -> None:
        """Start the process of the detector, if the model needs one, without waiting for it."""
        with self._lock:
            if 'regions' in self.streams and self._finder is None:
                self._finder = RegionProcess(
                    self.trained.config, self.trained.detector, self._process
                )
                self._process = None

    def watch(
        self,
        path: str | Path,
        regions: Mapping[str, np.ndarray] | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> Video:
        """Read a video once, and compute everything that does not depend on a question.

        Args:
          path: any file that FFmpeg can read. Only its beginning counts, up to the number of
            segments that the model was trained with.
          regions: the regions of the video, as the stage rois writes them: 'boxes' (T, K, 4),
            'classes' (T, K), 'scores' (T, K), 'features' (T, K, D). None: the model's detector
            finds them, in a process of its own, with PyTorch.
          progress: called with each of WATCH_STEPS when that step begins.

        Raises:
          VideoError: the file cannot be used; `reason` says why.
          StageError: the detector's packages are not installed, or `regions` has other shapes.
        """
        path = paths.from_user(str(path), 'the video')
        if 'regions' not in self.streams:
            regions = {}
        elif regions is None:
            self.start_detector()
        else:
            regions = self._check_regions(regions)
        begin = progress or (lambda step: None)
        image_size = self.trained.config.data.image_size
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            begin('reading')
            if regions is None:
                finding = pool.submit(self._finder.find, path)
            reading = pool.submit(
                video_arrays.read_video, self._limits, path, path, image_size, self._log_mel
            )
            self._compile()  # while other processes read the video
            try:
                record = reading.result()
                frames, log_mel = record['frames'][None], record['log_mel'][None]
                begin('listening')
                with self._numerics():
                    features = jax.device_get(self._encode(self._encoder_arrays, frames, log_mel))
                begin('looking')
                if regions is None:
                    regions = finding.result()
            except MediaError as error:
                raise VideoError(path, error.reason) from error
        tokens = {}
        if 'visual' in self.streams:
            with self._numerics():
                tokens = self._see(self._amuse_arrays, frames, log_mel)
        return Video(self, path, record, regions, features, tokens)

    def _compile(self) -> None:
        """Compile the programs for a video and a question, unless this has been done."""
        with self._lock:
            if self._is_compiled:
                return
            data, log_mel = self.trained.config.data, self._log_mel
            media = (
                (data.segments, data.image_size, data.image_size, 3),
                (data.segments, log_mel.frames, log_mel.mels),
            )
            frames, sound = (
                jax.ShapeDtypeStruct((1, *shape), dtype)
                for shape, dtype in zip(media, ('uint8', 'float16'))
            )
            with self._numerics():
                self._encode.lower(self._encoder_arrays, frames, sound).compile()
                if 'visual' in self.streams:
                    self._see.lower(self._amuse_arrays, frames, sound).compile()
            self._is_compiled = True

    def answer_all(
        self, inputs: Mapping[str, Any], questions: Sequence[str]
    ) -> tuple[np.ndarray, AmuseOutput]:
        """Answer questions about one video.

        Args:
          inputs: the fields of AmuseInputs that no question changes, by name.
          questions: Q questions.

        Returns:
          Probabilities (Q, 42), and the output with arrays [Q, ...].
        """
        words, mask = self.tokenizer.encode(questions)
        answered, start = [], 0
        while start < len(questions):
            size = next((n for n in GROUPS if n >= len(questions) - start), GROUPS[-1])
            rows = np.minimum(np.arange(start, start + size), len(questions) - 1)
            asked = AmuseInputs(words=words[rows][None], word_mask=mask[rows][None], **inputs)
            with self._numerics():
                result = jax.device_get(self._answer(self._amuse_arrays, asked))
            answered.append(jax.tree.map(operator.itemgetter(0), result))
            start += size
        return jax.tree.map(lambda *parts: np.concatenate(parts)[: len(questions)], *answered)

    def _check_regions(self, regions: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the regions with the dtypes of the stage rois.

        Raises:
          StageError: an array is missing or has another shape.
        """
        config = self.trained.config
        lead = (config.data.segments, config.rois.regions)
        shapes = {
            'boxes': (*lead, 4), 'classes': lead, 'scores': lead,
            'features': (*lead, config.rois.feature_size),
        }  # fmt: skip
        found = {name: np.shape(array) for name, array in regions.items()}
        if found != shapes:
            raise StageError(f'the regions of the video have the shapes {found}; expected {shapes}')
        return {name: np.asarray(regions[name], dtype) for name, dtype in _REGION_DTYPES.items()}

    @contextlib.contextmanager
    def _numerics(self):
        """Compute as in training: in 32 bits, with the precision of the model's dtype."""
        with jax.enable_x64(False), jax.default_matmul_precision(self._precision):
            yield


def _answer(amuse: Amuse, inputs: AmuseInputs) -> tuple[jax.Array, AmuseOutput]:
    """Return the probabilities of all answers, [..., 42], and the output that they come from."""
    output = amuse(inputs)
    return jax.nn.softmax(output.logits), output
