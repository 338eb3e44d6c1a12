"""The evaluate stage: answers to the test questions, and how good they are.

The questions are those of the run's own data set, or of another one (other_data.py). The table
(tables.py) stands beside two baselines (baselines.py), and beside published rows where these answer
the same questions (test_sets.py, published.py); report.py writes it down.
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
    example_page,
    other_data,
    report,
    tables,
    test_sets,
)
from amuse_jax.evaluation.other_data import Asked
from amuse_jax.music_avqa import REPHRASED, Question, vocabulary
from amuse_jax.regions import stage as rois
from amuse_jax.system import hosts
from amuse_jax.system.files import write_json
from amuse_jax.system.manifest import read_manifest
from amuse_jax.training.train import leakage, predict

METHODS = ('Amuse', 'most frequent answer', 'question words')

Rows = list[tuple[Question, dict]]  # a question and its line of predictions.jsonl


def run(config: ConfigDict, folder: Path, inputs: Mapping[str, Path]) -> dict:
    """Evaluates the best checkpoint on the test questions, and on MUSIC-AVQA-R's where there are.

    Leaves predictions.jsonl (every question with probabilities and importance scores), scores.json,
    table and templates.{txt,md,csv}, figures/, examples/ and report.md.

    Returns:
      The three methods' rows: accuracy in per cent by column of tables.COLUMNS.

    Raises:
      StageError: the data set has no test question, or the model knows too many of them (seen.py).
    """
    asked = other_data.asked(inputs)
    train = read_questions(inputs['prepare'], 'train')
    splits = other_data.splits_of(asked.prepare)
    questions = {split: read_questions(asked.prepare, split) for split in splits}
    for is_seen in _seen(inputs['train'], questions).values():
        leakage.check(is_seen, config.evaluate.leaked)  # before anything is computed
    rows = {
        split: _predictions(config, inputs, asked, split, len(part))
        for split, part in questions.items()
    }
    if not hosts.is_first():  # all predict, the first one writes
        return {}
    _write_lines(folder / 'predictions.jsonl', [line for part in rows.values() for _, line in part])

    questions = {split: [question for question, _ in part] for split, part in rows.items()}
    is_seen = _seen(inputs['train'], questions)
    answers = _answers(train, rows, questions)
    parts = {}
    for split in splits:
        parts |= _parts(
            questions[split], answers[split], split, is_seen[split], config.evaluate.leaked
        )
    test = rows['test']
    is_correct = parts['test'].is_correct
    scores = {
        'test_set': _test_set(parts['test'].questions, other_data.annotations(config)),
        'model': {
            'fingerprint': read_manifest(inputs['train'])['fingerprint'],
            'settings': settings_behind(inputs) | {'evaluate.leaked': config.evaluate.leaked},
        },
        'parts': {name: part.scores() for name, part in parts.items()},
    }
    write_json(folder / 'scores.json', scores)
    _draw_examples(config, folder, asked, test)
    templates = tables.per_template(parts['test'].questions, is_correct)
    report.write(folder, inputs, scores, templates, [line for _, line in test])
    return scores['parts']['test']['rows']


@dataclasses.dataclass(frozen=True)
class Part:
    """Some of the questions, and by method which of them it has right."""

    questions: list[Question]
    is_correct: dict[str, np.ndarray]

    def scores(self) -> dict:
        """{'questions': by column, 'rows': by method and column, 'intervals': the same}."""
        return {
            'questions': tables.counts(self.questions),
            'rows': {
                method: tables.accuracies(self.questions, hits)
                for method, hits in self.is_correct.items()
            },
            'intervals': bootstrap.intervals(self.questions, self.is_correct),
        }


def read_questions(prepared: Path, split: str) -> list[Question]:
    """The questions of a split that the prepare stage left in `prepared`.

    Raises:
      StageError: there are none.
    """
    chosen = Prepared(prepared).questions(split)
    if not chosen:
        raise StageError(
            f'{prepared} holds no {split} question; evaluate needs train and test questions'
        )
    return chosen


def settings_behind(inputs: Mapping[str, Path]) -> dict:
    """The settings by which the stages in front of this one were made, under their dotted names."""
    settings = {}
    for folder in inputs.values():
        settings |= read_manifest(folder)['settings']
    return settings


def _seen(trained: Path, questions: Mapping[str, Sequence[Question]]) -> dict[str, np.ndarray]:
    """By split, which questions the model knows; 'rephrased' ones by those of 'test', too."""
    return _for_all(functools.partial(leakage.among, trained), questions)


def _answers(
    train: Sequence[Question], rows: Mapping[str, Rows], questions: Mapping[str, Sequence[Question]]
) -> dict[str, dict[str, Sequence[str]]]:
    """Every method's answers to the questions of each split.

    A rephrased question is no template of `train`: the most frequent answer is that of the template
    that it rephrases. Where not one of these is known, nothing is said of this method.
    """
    words = _for_all(functools.partial(baselines.question_words, train), questions)
    answers = {}
    for split, part in questions.items():
        answers[split] = {METHODS[0]: [line['predicted'] for _, line in rows[split]]}
        if split == REPHRASED:
            part = baselines.with_templates_of(questions['test'], part)
        if part:
            answers[split][METHODS[1]] = baselines.most_frequent_answers(train, part)
        answers[split][METHODS[2]] = words[split]
    return answers


def _for_all(
    function: Callable[[list[Question]], Sequence], questions: Mapping[str, Sequence[Question]]
) -> dict[str, np.ndarray]:
    """By split, what the function says of its questions; it is called once with those of all."""
    found = function([question for part in questions.values() for question in part])
    ends = np.cumsum([len(part) for part in questions.values()])
    return dict(zip(questions, np.split(np.asarray(found), ends[:-1])))


def _parts(
    questions: Sequence[Question],
    answers: Mapping[str, Sequence[str]],
    split: str,
    is_seen: np.ndarray,
    leaked: str,
) -> dict[str, Part]:
    """The split as a whole, and what of it is told apart.

    'test' or 'rephrased' itself holds all questions, or with `leaked` 'apart' those that the model
    does not know. 'SPLIT, head' and 'SPLIT, tail': of these, the ones with frequent and with rare
    answers, where MUSIC-AVQA-R marks them (it has a file for each, and takes every average over the
    questions of one). 'SPLIT, seen' or 'SPLIT, unseen': the ones that the model knows, or not.
    """
    right = np.array([question.answer for question in questions])
    is_correct = {method: np.array(given) == right for method, given in answers.items()}

    counted = ~is_seen if leaked == 'apart' else np.ones_like(is_seen)
    frequency = np.array([question.frequency for question in questions])
    masks = {split: counted}
    masks |= {f'{split}, {name}': counted & (frequency == name) for name in ('head', 'tail')}
    masks |= {f'{split}, seen': is_seen} if leaked == 'apart' else {}
    masks |= {f'{split}, unseen': ~is_seen} if leaked == 'refuse' and is_seen.any() else {}
    return {
        name: Part(
            [questions[index] for index in np.flatnonzero(mask)],
            {method: hits[mask] for method, hits in is_correct.items()},
        )
        for name, mask in masks.items()
        if mask.any()
    }


def _test_set(questions: Sequence[Question], scheme: str) -> dict:
    """What is known of the questions: {'name', 'published', 'questions', 'of'}; see TestSet."""
    known = test_sets.recognise(questions, scheme)
    return {
        'name': known.name if known else '',
        'published': known.published if known else '',
        'questions': len(questions),
        'of': known.questions if known else len(questions),
    }


def _predictions(
    config: ConfigDict, inputs: Mapping[str, Path], asked: Asked, split: str, total: int
) -> Rows:
    """The split's questions, `total` of them, with their lines of predictions.jsonl."""
    rows = []
    found = predict.predict(config, asked.inputs(inputs), split, asked.encoded)
    name, is_quiet = f'evaluate: {split}', not hosts.is_first()
    for item in tqdm(found, total=total, desc=name, unit='question', disable=is_quiet):
        question = item.question
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
        rows.append((question, line))
    return rows


def _write_lines(path: Path, lines: Sequence[dict]) -> None:
    with open(path, 'w') as file:
        file.writelines(json.dumps(line) + '\n' for line in lines)


def _draw_examples(config: ConfigDict, folder: Path, asked: Asked, rows: Rows) -> None:
    """One page each for `config.evaluate.examples` questions of different types."""
    reader = Prepared(asked.prepare).reader()
    regions = {
        name: np.load(asked.rois / f'{name}.npy', mmap_mode='r') for name in ('boxes', 'classes')
    }
    labels = {
        name: np.load(asked.labels / f'{name}.npy', mmap_mode='r') for name in ('sources', 'rhythm')
    }
    class_names = rois.class_names(asked.rois)
    for number, (question, prediction) in enumerate(_varied(rows, config.evaluate.examples)):
        record = prediction['record']
        evidence = example_page.Evidence(
            frames=reader[record]['frames'],
            boxes=regions['boxes'][record],
            classes=regions['classes'][record],
            class_names=class_names,
            sources=labels['sources'][record],
            rhythm=labels['rhythm'][record],
            labels_from=asked.labels_from,
            segment_seconds=config.data.segment_seconds,
        )
        example_page.draw(
            evidence,
            question.text,
            np.array(prediction['probabilities']),
            prediction['importance'],
            question.answer,
            folder / f'examples/{number:02d}-{question.video_id}.png',
        )


def _varied(rows: Rows, count: int) -> Rows:
    """`count` questions that walk through the types and through the videos."""
    chosen, videos = [], set()
    while len(chosen) < count:
        before = len(chosen)
        for modality, kind in reversed(vocabulary.TYPES):
            for question, prediction in rows:
                fits = (question.modality, question.kind) == (modality, kind)
                if fits and question.video_id not in videos and len(chosen) < count:
                    chosen.append((question, prediction))
                    videos.add(question.video_id)
                    break
        if len(chosen) == before:
            break
    return chosen
