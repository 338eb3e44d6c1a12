"""A video that a model has watched, with everything that no question changes."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from amuse_jax.ask import answer as answers
from amuse_jax.ask.answer import Answer
from amuse_jax.data import video_arrays
from amuse_jax.data.records import segment_mask
from amuse_jax.errors import QuestionError
from amuse_jax.evaluation.page.evidence import Evidence
from amuse_jax.models.amuse import AmuseOutput
from amuse_jax.music_avqa import vocabulary
from amuse_jax.system import files, paths

if TYPE_CHECKING:
    from amuse_jax.ask.model import Model


class UnfamiliarQuestion(UserWarning):
    """The model has met no such question in training, so its answer is less reliable."""


class Video:
    """A video that a model has watched; `Model.watch` makes it.

    Attributes:
      path: the file.
      seconds: length of its sound, in seconds.
      notes: what of the video does not count, as sentences.
    """

    def __init__(
        self,
        model: 'Model',
        path: Path,
        record: Mapping,
        regions: Mapping[str, np.ndarray],
        features: Mapping[str, np.ndarray],
        tokens: Mapping[str, Any],
    ):
        """Keep what no question changes.

        Args:
          model: the model.
          path: the file.
          record: the arrays of the video, from `video_arrays.read_video`.
          regions: the regions, (T, K, ...) by name; {} for a model without regions.
          features: features and labels of the universal encoder, [1, T, ...] by name.
          tokens: `question_free` or `closed` of AmuseInputs; {} for a model without towers.
        """
        self.path, self.seconds = path, float(record['seconds'])
        self._model, self._record, self._regions = model, record, regions
        self._inputs = dict(tokens) | {
            'segment_mask': jnp.asarray(segment_mask(record)[None]),
            **{name: _to_device(array) for name, array in features.items()},
            **{name: _to_device(array[None]) for name, array in regions.items()},
        }
        self._sources, self._rhythm = (
            np.clip(features[name][0].astype(np.float32), 0, 1) for name in ('sources', 'rhythm')
        )
        data = model.trained.config.data
        self._segment_seconds = data.segment_seconds
        used = data.segments * data.segment_seconds
        self.notes: tuple[str, ...] = ()
        if video_arrays.is_cut(self.seconds, used):
            length = f'its sound lasts {self.seconds:.0f} s'
            self.notes = (f'only the first {used:g} s of the video count; {length}',)

    def save(self, path: str | Path) -> None:
        """Write the frames, log-mels and regions as safetensors.

        The programs of an exported model (`amuse export --stablehlo`) read this file.
        """
        arrays = {
            **{name: self._record[name][None] for name in ('frames', 'log_mel')},
            'segment_mask': segment_mask(self._record)[None],
            **{name: array[None] for name, array in self._regions.items()},
        }
        target = paths.from_user(str(path), 'the file')
        files.write_atomically(target, lambda beside: save_file(arrays, beside))

    @overload
    def ask(self, question: str) -> Answer: ...

    @overload
    def ask(self, question: Sequence[str]) -> list[Answer]: ...

    def ask(self, question: str | Sequence[str]) -> Answer | list[Answer]:
        """Answer a question, or several at once.

        Args:
          question: a question in plain English, or a list of them. A question that the model has
            not met in training is answered with the warning UnfamiliarQuestion.

        Returns:
          The answer, or a list of answers.

        Raises:
          QuestionError: a question has no word that the model knows, or the model has no answer.
        """
        questions = [question] if isinstance(question, str) else list(question)
        if not questions:
            return []
        notes = []
        for text in questions:  # in a comprehension the warning would name another line
            notes.append(self._notes_on(text))
        probabilities, output = self._model.answer_all(self._inputs, questions)
        if not np.isfinite(probabilities).all():
            raise QuestionError(
                'the model has no answer about this video: its probabilities are not finite; '
                'train it again, or ask about another video'
            )
        found = [
            self._make_answer(text, probabilities[index], output, index, notes[index])
            for index, text in enumerate(questions)
        ]
        return found[0] if isinstance(question, str) else found

    def _notes_on(self, question: str) -> list[str]:
        tokenizer, familiar = self._model.tokenizer, self._model.trained.familiar
        if tokenizer.is_blank(question):
            raise QuestionError(
                f'the question {question!r} has no word that the model knows; expected a question '
                'in plain English, such as "Is there a voiceover?"'
            )
        notes = tokenizer.losses(question)
        new = familiar.describe_new(question)
        for note in (*notes, *new):
            warnings.warn(f'{question!r}: {note}', UnfamiliarQuestion, stacklevel=3)
        return [*notes, *new]

    def _make_answer(
        self,
        question: str,
        probabilities: np.ndarray,
        output: AmuseOutput,
        index: int,
        notes: Sequence[str],
    ) -> Answer:
        class_names = self._model.trained.class_names
        order = np.argsort(-probabilities, kind='stable')
        importance = output.importance[index]
        weights = importance @ output.time_weights[index]
        regions: tuple[answers.Region, ...] = ()
        shares = np.zeros((len(weights), 0))
        if self._regions:
            shares = output.region_weights[index].reshape(self._regions['classes'].shape)
            regions = answers.regions(self._regions, shares, class_names, self._segment_seconds)
        time_weights = dict(zip(self._model.streams, output.time_weights[index]))
        return Answer(
            question=question,
            text=vocabulary.ANSWERS[order[0]],
            probabilities={vocabulary.ANSWERS[i]: float(probabilities[i]) for i in order},
            importance=dict(zip(self._model.streams, importance.tolist())),
            regions=regions,
            timeline=answers.timeline(
                self._sources, self._rhythm, weights / weights.sum(), self._segment_seconds
            ),
            notes=(*notes, *self.notes),
            evidence=self._evidence(shares, time_weights),
        )

    def _evidence(
        self, region_weights: np.ndarray, time_weights: Mapping[str, np.ndarray]
    ) -> Evidence:
        segments = len(self._record['frames'])
        return Evidence(
            frames=self._record['frames'],
            shape=self._record['shape'],
            boxes=self._regions.get('boxes', np.zeros((segments, 0, 4))),
            classes=self._regions.get('classes', np.zeros((segments, 0), int)),
            class_names=self._model.trained.class_names,
            sources=self._sources,
            rhythm=self._rhythm,
            labels_from='predicted by the universal encoder',
            segment_seconds=self._segment_seconds,
            segment_mask=segment_mask(self._record),
            region_weights=region_weights,
            time_weights=time_weights,
        )


def _to_device(array: np.ndarray) -> jax.Array:
    """Move an array to the device; float16, the dtype of stored arrays, becomes float32."""
    return jnp.asarray(array, jnp.float32 if array.dtype == np.float16 else array.dtype)
