"""The evaluate stage: answer the test questions and compute the accuracy.

The questions come from the run's own data set or from another one (other_data.py). The table
(tables.py) also shows two baselines (baselines.py) and, if the test set is a published one
(test_sets.py), the published rows (published.py). report.py writes the report.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    peers,
    report,
    tables,
    test_sets,
)
from amuse_jax.evaluation.examples import Answered
from amuse_jax.models.peers import catalogue
from amuse_jax.music_avqa import REPHRASED, Question, vocabulary
from amuse_jax.system import hosts
from amuse_jax.system.files import write_json
from amuse_jax.system.manifest import read_manifest
from amuse_jax.training.peers import predict as predict_peer
from amuse_jax.training.train import leakage, predict
from amuse_jax.training.train.predict import Prediction

AMUSE = 'Amuse'
BASELINES = ('most frequent answer', 'question words')


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

    def predict_split(split: str) -> Iterator[Prediction]:
        return predict.predict(config, test_data.inputs(inputs), split, test_data.encoded)

    found = _evaluate(config, folder, inputs, test_data.prepare, AMUSE, predict_split)
    if found is None:
        return {}
    scores, templates, answered = found
    chosen = examples.choose(answered, config.evaluate.examples)
    pages = examples.draw(config, folder / 'examples', test_data, chosen)
    shown = [report.Example(each.line, page) for each, page in zip(chosen, pages)]
    report.write(folder, inputs, scores, templates, [each.line for each in answered], shown)
    return scores['parts']['test']['rows']


def run_peer(config: ConfigDict, folder: Path, inputs: Mapping[str, Path]) -> dict:
    """Evaluate the best checkpoint of the config's peer, as `run` evaluates that of Amuse.

    A peer has no importance scores and no regions, so there are no pages with examples.

    Args:
      config: the config of the run.
      folder: the stage's folder.
      inputs: folders of the earlier stages by name.

    Returns:
      The rows of the three methods, as `run` does.

    Raises:
      StageError: as `run` does.
    """
    title = catalogue.find(config.peer.name).title
    split_predictor = functools.partial(predict_peer.predict, config, inputs)
    notes = [peers.STAND_INS_NOTE] if config.peer.inputs == 'towers' else []
    found = _evaluate(config, folder, inputs, inputs['prepare'], title, split_predictor, notes)
    if found is None:
        return {}
    scores, templates, answered = found
    report.write(folder, inputs, scores, templates, [each.line for each in answered], [])
    return scores['parts']['test']['rows']


def _evaluate(
    config: ConfigDict,
    folder: Path,
    inputs: Mapping[str, Path],
    test_prepare: Path,
    method: str,
    predict_split: Callable[[str], Iterator[Prediction]],
    notes: Sequence[str] = (),
) -> tuple[dict, list[dict], list[Answered]] | None:
    """Answer all test questions; write predictions.jsonl and scores.json.

    Args:
      config: the config of the run.
      folder: the stage's folder.
      inputs: folders of the earlier stages by name.
      test_prepare: folder of the test records and questions.
      method: name of the model's row.
      predict_split: returns the predictions for a split.
      notes: sentences about the model, which stand below its tables.

    Returns:
      The content of scores.json, the rows of tables.per_template, and the answered test questions;
      None on all hosts but the first.
    """
    train = read_questions(inputs['prepare'], 'train')
    splits = other_data.test_splits(test_prepare)
    questions = {split: read_questions(test_prepare, split) for split in splits}
    for is_leaked in _find_leaked(inputs['train'], questions).values():
        leakage.check(is_leaked, config.evaluate.leaked)  # before the model runs
    predictions = {
        split: _answered(predict_split(split), split, len(part))
        for split, part in questions.items()
    }
    if not hosts.is_first():  # all hosts predict, but only the first one writes
        return None
    lines = [each.line for part in predictions.values() for each in part]
    _write_lines(folder / 'predictions.jsonl', lines)

    questions = {split: [each.question for each in part] for split, part in predictions.items()}
    is_leaked = _find_leaked(inputs['train'], questions)
    answers = _answers(train, method, predictions, questions)
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
            **({'notes': list(notes)} if notes else {}),
        },
        'parts': {name: part.scores() for name, part in parts.items()},
    }
    write_json(folder / 'scores.json', scores)
    templates = tables.per_template(parts['test'].questions, parts['test'].is_correct)
    return scores, templates, predictions['test']


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
    method: str,
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
        answers[split] = {method: [each.line['predicted'] for each in predictions[split]]}
        if split == REPHRASED:
            part = baselines.with_original_templates(questions['test'], part)
        if part:
            answers[split][BASELINES[0]] = baselines.most_frequent_answers(train, part)
        answers[split][BASELINES[1]] = words[split]
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


def _answered(found: Iterator[Prediction], split: str, total: int) -> list[Answered]:
    """Return a split's predictions for predictions.jsonl; `total` is their number."""
    answered = []
    name, is_quiet = f'evaluate: {split}', not hosts.is_first()
    for item in tqdm(found, total=total, desc=name, unit='question', disable=is_quiet):
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
        }
        if item.importance:
            line['importance'] = {
                stream: round(float(weight), 5) for stream, weight in item.importance.items()
            }
        # Copies, because the arrays are parts of a whole batch.
        regions = None if item.region_weights is None else item.region_weights.copy()
        time_weights = {name: part.copy() for name, part in item.time_weights.items()}
        answered.append(Answered(question, line, regions, time_weights))
    return answered


def _write_lines(path: Path, lines: Sequence[dict]) -> None:
    with open(path, 'w', encoding='utf-8') as file:
        file.writelines(json.dumps(line) + '\n' for line in lines)
