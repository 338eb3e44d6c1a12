"""What the evaluate stage shows: tables for a terminal, a page and other programs, and figures."""

import json
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path

from amuse_jax import stages
from amuse_jax.evaluation import bootstrap, figures, published, tables

MARGIN = '± 95 %'


def write(
    folder: Path,
    inputs: Mapping[str, Path],
    scores: Mapping,
    templates: Sequence[Mapping],
    predictions: Sequence[Mapping],
) -> None:
    """Writes table.{txt,md,csv}, templates.md, figures/ and report.md, which shows them all.

    Args:
      folder: of the evaluate stage; its examples/ are drawn already.
      inputs: the folders of annotate, rois, pretrain and train.
      scores: as in scores.json.
      templates: of tables.per_template.
      predictions: the test questions' lines of predictions.jsonl.
    """
    peers = published.methods(scores['test_set']['published'])
    main, parts = main_rows(scores) | published.marked(peers), part_rows(scores)
    notes = [*_notes(scores), *([published_note(peers)] if peers else [])]
    shown = [rows for rows in (main, parts) if rows]
    (folder / 'table.txt').write_text('\n\n'.join([*map(tables.as_text, shown), *notes]) + '\n')
    pages = [tables.as_markdown(rows) + '\n' for rows in shown]
    (folder / 'table.md').write_text('\n'.join(pages))
    (folder / 'table.csv').write_text(tables.as_csv(_csv_rows(scores, peers)))
    (folder / 'templates.md').write_text(tables.templates_as_markdown(templates) + '\n')
    figures.training_curves(inputs['train'] / 'metrics.jsonl', folder / 'figures/training.png')
    figures.importance(predictions, folder / 'figures/importance.png')
    test = scores['parts']['test']
    figures.accuracy_bars(
        test['rows'],
        folder / 'figures/accuracy.png',
        bootstrap.margins(test['intervals']),
        {row.method: row.row for row in peers},
    )
    _write_page(folder, inputs, scores, pages, notes)


def main_rows(scores: Mapping) -> dict[str, Mapping[str, float | str]]:
    """The methods' rows over the test questions; Amuse's with its margins."""
    test = scores['parts']['test']
    margins = bootstrap.margins({'Amuse': test['intervals']['Amuse']})
    return tables.with_margins(test['rows'], margins, MARGIN)


def part_rows(scores: Mapping) -> dict[str, Mapping[str, float | str]]:
    """Every method's rows over the other parts, as 'METHOD: PART'; Amuse's with their margins."""
    result: dict[str, Mapping[str, float | str]] = {}
    for method in scores['parts']['test']['rows']:
        for name, part in scores['parts'].items():
            if name != 'test' and method in part['rows']:
                label = f'{method}: {name}'
                rows = {label: part['rows'][method]}
                found = {label: part['intervals'][method]} if method == 'Amuse' else {}
                result |= tables.with_margins(rows, bootstrap.margins(found), MARGIN)
    return result


def published_note(peers: Sequence[published.Published]) -> str:
    """Where published rows come from and what their mark means."""
    sources = ' and '.join(dict.fromkeys(row.source for row in peers))
    return (
        f'Rows with authors are as printed in {sources}. {published.MARK}: an average that is not '
        "the one over the test set's questions."
    )


def _csv_rows(scores: Mapping, peers: Sequence[published.Published]) -> dict[str, tables.Row]:
    """All rows of all parts with their intervals' bounds, and the published ones as printed."""
    result: dict[str, tables.Row] = {}
    for name, part in scores['parts'].items():
        for method, row in part['rows'].items():
            label = method if name == 'test' else f'{method}: {name}'
            bounds = part['intervals'][method]
            result[label] = row
            for index, bound in enumerate(('from', 'to')):
                column_bounds = {column: bounds[column][index] for column in tables.COLUMNS}
                result[f'{label}, 95 % {bound}'] = column_bounds
    return result | {row.method: row.row for row in peers}


def _notes(scores: Mapping) -> list[str]:
    """What a reader has to know of the numbers, a sentence or two each."""
    notes = [
        'Accuracy in per cent; averages count questions. ± is half of the 95 % interval over test '
        f'videos drawn anew ({bootstrap.RESAMPLES:,} times).'
    ]
    test_set = scores['test_set']
    if test_set['name']:
        notes.append(
            f'Test set: {test_set["name"]}, {test_set["questions"]:,} of its {test_set["of"]:,} '
            'questions.'
        )
    for name, part in scores['parts'].items():
        split, _, kind = name.partition(', ')
        if kind not in ('seen', 'unseen'):
            continue
        total = scores['parts'][split]['questions']['Avg']
        seen = part['questions']['Avg'] if kind == 'seen' else total - part['questions']['Avg']
        others = 'they count in no other row' if kind == 'seen' else f'{name!r} leaves them out'
        notes.append(
            f'The model was trained or validated on {seen:,} of the {split} questions; {others}.'
        )
    return notes


def _write_page(
    folder: Path,
    inputs: Mapping[str, Path],
    scores: Mapping,
    rows: Sequence[str],
    notes: Sequence[str],
) -> None:
    """report.md: everything a reader wants to see of the run, on one page; `rows` are the tables of
    the test questions and, where there are any, of parts."""
    questions = scores['test_set']['questions']
    page = [
        f'# Music performance question answering: {questions:,} test questions\n',
        rows[0],
        *(note + '\n' for note in notes),
        '![accuracy per type](figures/accuracy.png)\n',
    ]
    if rows[1:]:
        page.append(f'## Parts of the test\n\n{rows[1]}')
    page += [
        '## Importance of each stream (Fig. 5)\n\n![importance](figures/importance.png)\n',
        '## Training\n\n![training](figures/training.png)\n',
        '## Annotators and detector\n',
    ]
    for name in ('annotate', 'rois', 'pretrain'):
        summary = stages.read_manifest(inputs[name])['summary']
        page.append(f'{name}\n\n```json\n{json.dumps(summary, indent=1)}\n```\n')
    page.append('## Accuracy per template\n\n' + (folder / 'templates.md').read_text())
    page.append('## Examples (Fig. 4)\n')
    for path in sorted((folder / 'examples').iterdir()):
        # Names of videos hold '#', which would end the address, and may hold spaces.
        page.append(f'![{path.stem}](examples/{urllib.parse.quote(path.name)})\n')
    (folder / 'report.md').write_text('\n'.join(page))


def shown(folder: Path) -> str:
    """The finished stage's table and where its report is, for the terminal."""
    return f'\n{(folder / "table.txt").read_text()}\nreport: {folder / "report.md"}'
