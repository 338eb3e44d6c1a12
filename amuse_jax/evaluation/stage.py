"""The evaluate stage: answer the test questions and compute the accuracy.

The questions come from the run's own data set or from another one (other_data.py). The table
(tables.py) also shows two baselines (baselines.py) and, if the test set is a published one
(test_sets.py), the published rows (published.py). report.py writes the report.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from amuse_jax.data.prepared import Prepared
from amuse_jax.errors import StageError
from amuse_jax.evaluation import (
    baselines,
    bootstrap,
    examples,
    other_data,
    report,
    tables,
    test_sets,
)
from amuse_jax.evaluation.examples import Answered
from amuse_jax.evaluation.other_data import TestData
from amuse_jax.music_avqa import REPHRASED, Question, vocabulary
from amuse_jax.system import hosts
from amuse_jax.system.files import write_json
from amuse_jax.system.manifest import read_manifest
from amuse_jax.training.train import leakage, predict

METHODS = ('Amuse', 'most frequent answer', 'question words')


def run(config: ConfigDict, folder: Path, inputs: Mapping[str, Path]) -> dict:
    """Evaluate the best checkpoint on the test questions and, if there are any, rephrased ones.

    The stage writes predictions.jsonl (every question with probabilities and importance scores),
    scores.json, table.{txt,md,csv}, templates.{txt,md,csv}, figures/, examples/, report.html and
    report.md.

    Args:
      config: the config of the run.
      folder: the stage's folder.
      inputs: folders of the earlier stages by name.

    Returns:
      The rows of the three methods: accuracy in per cent by column of tables.COLUMNS.

    Raises:
      StageError: the data set has no test question, the model was trained on too many of them
        (leakage.py), or an answer is not finite.
    """
    test_data = other_data.find_test_data(inputs)
    train = read_questions(inputs['prepare'], 'train')
    splits = other_data.test_splits(test_data.prepare)
    questions = {split: read_questions(test_data.prepare, split) for split in splits}
    for is_leaked in _find_leaked(inputs['train'], questions).values():
        leakage.check(is_leaked, config.evaluate.leaked)  # before the model runs
    predictions = {
        split: _predict(config, inputs, test_data, split, len(part))
        for split, part in questions.items()
    }
    if not hosts.is_first():  # all hosts predict, but only the first one writes
        return {}
    lines = [each.line for part in predictions.values() for each in part]
    _write_lines(folder / 'predictions.jsonl', lines)

    questions = {split: [each.question for each in part] for split, part in predictions.items()}
    is_leaked = _find_leaked(inputs['train'], questions)
    answers = _answers(train, predictions, questions)
    parts = {}
    for split in splits:
        parts |= _parts(
            questions[split], answers[split], split, is_leaked[split], config.evaluate.leaked
        )
    scores = {
        'test_set': _test_set(parts['test'].questions, other_data.annotations(config)),
        'model': {
            'fingerprint': read_manifest(inputs['train'])['fingerprint'],
            'data': read_manifest(inputs['prepare']).get('sources', ''),
            'settings': upstream_settings(inputs) | {'evaluate.leaked': config.evaluate.leaked},
        },
        'parts': {name: part.scores() for name, part in parts.items()},
    }
    write_json(folder / 'scores.json', scores)
    templates = tables.per_template(parts['test'].questions, parts['test'].is_correct)
    chosen = examples.choose(predictions['test'], config.evaluate.examples)
    pages = examples.draw(config, folder / 'examples', test_data, chosen)
    report.write(
        folder,
        inputs,
        scores,
        templates,
        [each.line for each in predictions['test']],
        [report.Example(each.line, page) for each, page in zip(chosen, pages)],
    )
    return scores['parts']['test']['rows']


@dataclasses.dataclass(frozen=True)
class Part:
    """A subset of the test questions, and which of them each method answers correctly.

    Attributes:
      questions: n questions.
      is_correct: for each method, (n,) bool.
    """

    questions: list[Question]
    is_correct: dict[str, np.ndarray]

    def scores(self) -> dict:
        """Compute the entry of scores.json.

        Returns:
          'questions': number of questions by column of tables.COLUMNS; 'rows': accuracies by method
          and column; 'intervals': their 95 % intervals by method and column.
        """
        return {
            'questions': tables.counts(self.questions),
            'rows': {
                method: tables.accuracies(self.questions, hits)
                for method, hits in self.is_correct.items()
            },
            'intervals': bootstrap.intervals(self.questions, self.is_correct),
        }


def read_questions(prepared: Path, split: str) -> list[Question]:
    """Read the questions of a split from the prepare stage's folder.

    Raises:
      StageError: the split has no question.
    """
    chosen = Prepared(prepared).questions(split)
    if not chosen:
        raise StageError(
            f'{prepared} holds no {split} question; evaluate needs train and test questions'
        )
    return chosen


def upstream_settings(inputs: Mapping[str, Path]) -> dict:
    """Read the settings of all earlier stages from their manifests, by dotted name."""
    settings = {}
    for folder in inputs.values():
        settings |= read_manifest(folder)['settings']
    return settings


def _find_leaked(
    train_folder: Path, questions: Mapping[str, Sequence[Question]]
) -> dict[str, np.ndarray]:
    """Return, for each split, which questions the model was trained or validated on.

    All splits are searched together, so that a rephrased question is leaked if the test question
    that it rephrases is leaked.
    """
    return _map_over_splits(functools.partial(leakage.find_leaked, train_folder), questions)


def _answers(
    train: Sequence[Question],
    predictions: Mapping[str, Sequence[Answered]],
    questions: Mapping[str, Sequence[Question]],
) -> dict[str, dict[str, Sequence[str]]]:
    """Return the answers of every method to the questions of each split.

    A rephrased question has no template of the train questions, so its most frequent answer is
    looked up by the template of the test question that it rephrases. If no such test question is
    known, the method 'most frequent answer' is left out for the rephrased questions.
    """
    words = _map_over_splits(functools.partial(baselines.answer_from_words, train), questions)
    answers = {}
    for split, part in questions.items():
        answers[split] = {METHODS[0]: [each.line['predicted'] for each in predictions[split]]}
        if split == REPHRASED:
            part = baselines.with_original_templates(questions['test'], part)
        if part:
            answers[split][METHODS[1]] = baselines.most_frequent_answers(train, part)
        answers[split][METHODS[2]] = words[split]
    return answers


def _map_over_splits(
    function: Callable[[list[Question]], Sequence], questions: Mapping[str, Sequence[Question]]
) -> dict[str, np.ndarray]:
    """Call `function` once with the questions of all splits; return its results by split."""
    results = function([question for part in questions.values() for question in part])
    ends = np.cumsum([len(part) for part in questions.values()])
    return dict(zip(questions, np.split(np.asarray(results), ends[:-1])))


def _parts(
    questions: Sequence[Question],
    answers: Mapping[str, Sequence[str]],
    split: str,
    is_leaked: np.ndarray,
    leaked: str,
) -> dict[str, Part]:
    """Divide the questions of a split ('test' or 'rephrased') into parts; omit empty parts.

    A question is leaked if the model was trained or validated on it. 'SPLIT' has all questions; if
    `leaked` is 'apart', it has only those that are not leaked. 'SPLIT, head' and 'SPLIT, tail' have
    the questions of 'SPLIT' with frequent and with rare answers. Only MUSIC-AVQA-R marks these: it
    has a file for each, and averages over the questions of one file. 'SPLIT, seen' (if `leaked` is
    'apart') has the leaked questions. 'SPLIT, unseen' (if `leaked` is 'refuse' and some questions
    are leaked) has the others.
    """
    true_answers = np.array([question.answer for question in questions])
    is_correct = {method: np.array(given) == true_answers for method, given in answers.items()}

    counted = ~is_leaked if leaked == 'apart' else np.ones_like(is_leaked)
    frequency = np.array([question.frequency for question in questions])
    masks = {split: counted}
    masks |= {f'{split}, {name}': counted & (frequency == name) for name in ('head', 'tail')}
    masks |= {f'{split}, seen': is_leaked} if leaked == 'apart' else {}
    masks |= {f'{split}, unseen': ~is_leaked} if leaked == 'refuse' and is_leaked.any() else {}
    return {
        name: Part(
            [questions[index] for index in np.flatnonzero(mask)],
            {method: hits[mask] for method, hits in is_correct.items()},
        )
        for name, mask in masks.items()
        if mask.any()
    }


def _test_set(questions: Sequence[Question], scheme: str) -> dict:
    """Describe the test set for scores.json.

    Returns:
      'name' and 'published' as in test_sets.TestSet, or '' if the test set is not a published one;
      'questions': number of questions; 'of': number of questions of the published test set.
    """
    known = test_sets.recognise(questions, scheme)
    return {
        'name': known.name if known else '',
        'published': known.published if known else '',
        'questions': len(questions),
        'of': known.questions if known else len(questions),
    }


def _predict(
    config: ConfigDict, inputs: Mapping[str, Path], test_data: TestData, split: str, total: int
) -> list[Answered]:
    """Answer the split's questions; `total` is their number, for the progress bar."""
    predictions = []
    results = predict.predict(config, test_data.inputs(inputs), split, test_data.encoded)
    name, is_quiet = f'evaluate: {split}', not hosts.is_first()
    for item in tqdm(results, total=total, desc=name, unit='question', disable=is_quiet):
        question = item.question
        if not np.isfinite(item.probabilities).all():
            raise StageError(
                f'the model has no answer about the video {question.video_id} (question '
                f'{question.question_id}): its probabilities are not finite; prepare the videos '
                'again, and train again if that does not help'
            )
        best = int(np.argmax(item.probabilities))
        line = {
            'question_id': question.question_id,
            'video_id': question.video_id,
            'record': item.record,
            'split': split,
            'modality': question.modality,
            'kind': question.kind,
            'template': question.template,
            'question': question.text,
            'answer': question.answer,
            'predicted': vocabulary.ANSWERS[best],
            'probabilities': [round(float(p), 5) for p in item.probabilities],
            'importance': {
                stream: round(float(weight), 5) for stream, weight in item.importance.items()
            },
        }
        # Copies, because the arrays are parts of a whole batch.
        time_weights = {name: part.copy() for name, part in item.time_weights.items()}
        predictions.append(Answered(question, line, item.region_weights.copy(), time_weights))
    return predictions


def _write_lines(path: Path, lines: Sequence[dict]) -> None:
    with open(path, 'w', encoding='utf-8') as file:
        file.writelines(json.dumps(line) + '\n' for line in lines)
