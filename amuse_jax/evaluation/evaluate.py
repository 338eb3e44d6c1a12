"""The evaluate stage: test predictions, Table 2's row beside two baselines, figures and pages."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from amuse_jax import stages
from amuse_jax.data import records, vocabulary
from amuse_jax.data.music_avqa import Question
from amuse_jax.evaluation import baselines, example_page, figures, tables
from amuse_jax.training import predict

METHODS = ('Amuse', 'most frequent answer', 'question words')


def run(config: ConfigDict, folder: Path, inputs: Mapping[str, Path]) -> dict:
    """Evaluates the best checkpoint on the test questions.

    Leaves predictions.jsonl (every test question with probabilities and importance scores),
    table.{txt,md,csv}, templates.md, scores.json, figures/, examples/ and report.md.

    Returns:
      The three methods' rows: accuracy in per cent by column of tables.COLUMNS.

    Raises:
      StageError: the data set has no test question.
    """
    train = _questions(inputs['prepare'], 'train')
    rows = _predictions(config, inputs)
    test = [question for question, _ in rows]
    predictions = [prediction for _, prediction in rows]
    _write_lines(folder / 'predictions.jsonl', predictions)

    answers = {
        METHODS[0]: [prediction['predicted'] for prediction in predictions],
        METHODS[1]: baselines.most_frequent_answers(train, test),
        METHODS[2]: baselines.question_words(train, test),
    }
    is_correct = {
        method: [given == question.answer for given, question in zip(answers[method], test)]
        for method in METHODS
    }
    scores = {method: tables.accuracies(test, is_correct[method]) for method in METHODS}
    templates = tables.per_template(test, is_correct)
    _write_tables(folder, scores, templates)
    figures.training_curves(inputs['train'] / 'metrics.jsonl', folder / 'figures/training.png')
    figures.importance(predictions, folder / 'figures/importance.png')
    figures.accuracy_bars(scores, folder / 'figures/accuracy.png')
    _draw_examples(config, folder, inputs, rows)
    _write_report(folder, inputs, len(test))
    return scores


def report(folder: Path) -> str:
    """The finished stage's table and where its report is, for the terminal."""
    return f'\n{(folder / "table.txt").read_text()}\nreport: {folder / "report.md"}'


def _questions(prepared: Path, split: str) -> list[Question]:
    rows = json.loads((prepared / 'questions.json').read_text())
    fields = [field.name for field in dataclasses.fields(Question)]
    chosen = [
        Question(**{name: row[name] for name in fields} | {'values': tuple(row['values'])})
        for row in rows
        if row['split'] == split
    ]
    if not chosen:
        raise stages.StageError(
            f'{prepared} holds no {split} question; evaluate needs train and test questions'
        )
    return chosen


def _predictions(config: ConfigDict, inputs: Mapping[str, Path]) -> list[tuple[Question, dict]]:
    """The test questions with rows of predictions.jsonl."""
    total = len(_questions(inputs['prepare'], 'test'))
    rows = []
    for item in tqdm(
        predict.predict(config, inputs, 'test'), total=total, desc='evaluate', unit='question'
    ):
        question = item.question
        best = int(np.argmax(item.probabilities))
        rows.append(
            (
                question,
                {
                    'question_id': question.question_id,
                    'video_id': question.video_id,
                    'record': item.record,
                    'modality': question.modality,
                    'kind': question.kind,
                    'template': question.template,
                    'question': question.text,
                    'answer': question.answer,
                    'predicted': vocabulary.ANSWERS[best],
                    'probabilities': [round(float(p), 5) for p in item.probabilities],
                    'importance': {
                        stream: round(float(weight), 5)
                        for stream, weight in item.importance.items()
                    },
                },
            )
        )
    return rows


def _write_lines(path: Path, rows: Sequence[dict]) -> None:
    with open(path, 'w') as file:
        file.writelines(json.dumps(row) + '\n' for row in rows)


def _write_tables(folder: Path, scores: dict, templates: list[dict]) -> None:
    (folder / 'table.txt').write_text(tables.as_text(scores) + '\n')
    (folder / 'table.md').write_text(tables.as_markdown(scores) + '\n')
    (folder / 'table.csv').write_text(tables.as_csv(scores))
    (folder / 'templates.md').write_text(tables.templates_as_markdown(templates) + '\n')
    stages.write_json(folder / 'scores.json', scores)


def _draw_examples(
    config: ConfigDict,
    folder: Path,
    inputs: Mapping[str, Path],
    rows: Sequence[tuple[Question, dict]],
) -> None:
    """One page each for `config.evaluate.examples` questions of different types."""
    reader = records.RecordReader(inputs['prepare'] / 'records')
    regions = {
        name: np.load(inputs['rois'] / f'{name}.npy', mmap_mode='r')
        for name in ('boxes', 'classes')
    }
    labels = {
        name: np.load(inputs['annotate'] / f'{name}.npy', mmap_mode='r')
        for name in ('sources', 'rhythm')
    }
    class_names = json.loads((inputs['rois'] / 'classes.json').read_text())
    for number, (question, prediction) in enumerate(_varied(rows, config.evaluate.examples)):
        record = prediction['record']
        evidence = example_page.Evidence(
            frames=reader[record]['frames'],
            boxes=regions['boxes'][record],
            classes=regions['classes'][record],
            class_names=class_names,
            sources=labels['sources'][record],
            rhythm=labels['rhythm'][record],
            labels_from='annotated',
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


def _varied(rows: Sequence[tuple[Question, dict]], count: int) -> list[tuple[Question, dict]]:
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


def _write_report(folder: Path, inputs: Mapping[str, Path], questions: int) -> None:
    """report.md: everything a reader wants to see of the run, on one page."""
    parts = [
        f'# Music performance question answering: {questions} test questions\n',
        (folder / 'table.md').read_text(),
        'Accuracy in per cent; averages count questions.\n',
        '![accuracy per type](figures/accuracy.png)\n',
        '## Importance of each stream (Fig. 5)\n\n![importance](figures/importance.png)\n',
        '## Training\n\n![training](figures/training.png)\n',
        '## Annotators and detector\n',
    ]
    for name in ('annotate', 'rois', 'pretrain'):
        summary = stages.read_manifest(inputs[name])['summary']
        parts.append(f'{name}\n\n```json\n{json.dumps(summary, indent=1)}\n```\n')
    parts.append('## Accuracy per template\n\n' + (folder / 'templates.md').read_text())
    parts.append('## Examples (Fig. 4)\n')
    parts += [f'![{p.stem}](examples/{p.name})\n' for p in sorted((folder / 'examples').iterdir())]
    (folder / 'report.md').write_text('\n'.join(parts))
