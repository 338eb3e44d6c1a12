"""Table 4 of the paper: the whole model, and four models without one of its parts."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from amuse_jax.errors import StageError
from amuse_jax.evaluation import (
    bootstrap,
    comparison,
    figures,
    published,
    report,
    seeds,
    tables,
)
from amuse_jax.music_avqa import Question

# The part that is left out -> name of the row in the paper.
ROWS = {
    'encoder': 'w/o M.i.e.',
    'rhythm': 'w/o Rhy.',
    'sources': 'w/o Src.',
    'rois': 'w/o RoIs',
    '': 'Amuse',
}
WHOLE = ROWS['']


def write(folder: Path, evaluated: Mapping[str, Path]) -> str:
    """Write the rows of all variants; see comparison.write.

    If the test set is the paper's, they also show the paper's rows.

    Args:
      folder: folder to write to.
      evaluated: the finished evaluate folder for each part that is left out; '' is the whole model.

    Returns:
      The table for a terminal.
    """
    scores = {ROWS[part]: tables.read_scores(evaluated[part]) for part in ROWS}
    printed = published.ablations(scores[WHOLE]['test_set']['published'])
    return comparison.write(folder, scores, printed)


def write_differences(folder: Path, runs: Sequence[Path]) -> str:
    """Write what each part is worth, over the test questions of all runs together.

    Every run is compared with its own ablations, question by question. The videos of different runs
    count as different ones.

    Args:
      folder: folder for table.{txt,md,csv} and accuracy.png.
      runs: workdirs of runs with --stages=ablations, or evaluate folders in them, such as
        runs/demo/evaluate-paper-head.

    Returns:
      The table for a terminal.

    Raises:
      StageError: a run lacks an ablation, or its models answered different questions.
    """
    questions, is_correct = _collect(runs)
    accuracies = {name: tables.accuracies(questions, hits) for name, hits in is_correct.items()}
    whole_row = accuracies.pop(WHOLE)
    rows = {
        name: {column: row[column] - whole_row[column] for column in tables.COLUMNS}
        for name, row in accuracies.items()
    }
    bounds = bootstrap.difference_intervals(questions, is_correct, WHOLE)
    margins = bootstrap.margins(bounds)
    displayed = [{WHOLE: whole_row}, tables.with_margins(rows, margins, report.MARGIN)]
    csv_rows = {WHOLE: whole_row} | tables.with_bounds(rows, bounds)
    text = tables.write(folder, displayed, csv_rows, [_note(len(runs))], 'accuracy.png')
    figures.accuracy_bars({WHOLE: whole_row} | accuracies, folder / 'accuracy.png')
    return f'\n{text}\n\ntable: {folder / "table.md"}'


def _collect(runs: Sequence[Path]) -> tuple[list[Question], dict[str, list[bool]]]:
    """Return the questions of all runs, and whether each row answers them right."""
    questions: list[Question] = []
    is_correct: dict[str, list[bool]] = {name: [] for name in ROWS.values()}
    for number, run in enumerate(runs):
        whole = seeds.evaluate_folder(run)
        asked, _ = _answers(whole, number)
        questions += asked
        for part, name in ROWS.items():
            suffix = f'-without-{part}' if part else ''
            folder = seeds.evaluate_folder(whole.with_name(whole.name + suffix))
            others, hits = _answers(folder, number)
            if others != asked:
                raise StageError(
                    f'{folder} answers other questions than {whole}; run --stages=ablations again '
                    'with the settings of the run'
                )
            is_correct[name] += hits
    return questions, is_correct


def _note(runs: int) -> str:
    return (
        'First the accuracy of the whole model in per cent over the questions of '
        f'{runs} {"run" if runs == 1 else "runs"}, then how many points more a model without the '
        f'part reaches: below zero the part helps. {report.MARGIN} is half the width of the 95 % '
        'interval of a bootstrap over the test videos of all runs '
        f'({bootstrap.RESAMPLES:,} resamples), which compares both models on the same questions.'
    )


def _answers(folder: Path, number: int) -> tuple[list[Question], list[bool]]:
    """Read the test questions that an evaluate folder answers, and which answers are right.

    Args:
      folder: the evaluate folder.
      number: the run's number; it makes the names of its videos differ from those of other runs.
    """
    lines = [json.loads(line) for line in (folder / 'predictions.jsonl').open(encoding='utf-8')]
    lines = [line for line in lines if line['split'] == 'test']
    lines.sort(key=lambda line: (line['question_id'], line['record']))
    questions = [
        Question(
            question_id=line['question_id'],
            video_id=f'{number}-{line["video_id"]}',
            sound_id=f'{number}-{line["video_id"]}',
            split='test',
            modality=line['modality'],
            kind=line['kind'],
            template=line['template'],
            values=(),
            text=line['question'],
            answer=line['answer'],
        )
        for line in lines
    ]
    return questions, [line['predicted'] == line['answer'] for line in lines]
