"""What the evaluate stage shows: tables for a terminal, a page and other programs, and figures."""

import json
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path

from amuse_jax.evaluation import bootstrap, figures, published, tables
from amuse_jax.system.manifest import read_manifest

MARGIN = '± 95 %'
INTERVAL_NOTE = (
    f'Accuracy in per cent; averages count questions. {MARGIN} is half of the 95 % interval over '
    f'test videos drawn anew ({bootstrap.RESAMPLES:,} times).'
)


def write(
    folder: Path,
    inputs: Mapping[str, Path],
    scores: Mapping,
    templates: Sequence[Mapping],
    predictions: Sequence[Mapping],
) -> None:
    """Writes table and templates.{txt,md,csv}, figures/ and report.md, which shows them all.

    Args:
      folder: of the evaluate stage; its examples/ are drawn already.
      inputs: the folders of annotate, rois, pretrain and train.
      scores: as in scores.json.
      templates: of tables.per_template.
      predictions: the test questions' lines of predictions.jsonl.
    """
    peers = published.methods(scores['test_set']['published'])
    notes = [*_notes(scores), *([published_note(peers)] if peers else [])]
    others = {name: part for name, part in scores['parts'].items() if name != 'test'}
    shown = [_rows({'test': scores['parts']['test']}) | published.marked(peers)]
    shown += [_rows(others)] if others else []
    picture = 'figures/accuracy.png'
    tables.write(folder, shown, _csv_rows(scores, peers), notes, picture)
    tables.write_templates(folder, templates)
    figures.training_curves(inputs['train'] / 'metrics.jsonl', folder / 'figures/training.png')
    figures.importance(predictions, folder / 'figures/importance.png')
    figures.template_marks(templates, folder / 'figures/templates.png')
    test = scores['parts']['test']
    figures.accuracy_bars(
        test['rows'],
        folder / picture,
        bootstrap.margins(test['intervals']),
        {row.method: row.row for row in peers},
    )
    _write_page(folder, inputs, scores, [tables.as_markdown(rows) + '\n' for rows in shown], notes)


def labelled(parts: Mapping[str, Mapping], key: str) -> dict[str, Mapping]:
    """The 'rows' or 'intervals' of all methods over some parts of scores.json.

    Those of the test questions are called 'METHOD', those of another part 'METHOD: PART'.
    """
    methods = dict.fromkeys(method for part in parts.values() for method in part[key])
    return {
        method if name == 'test' else f'{method}: {name}': part[key][method]
        for method in methods
        for name, part in parts.items()
        if method in part[key]
    }


def own_margins(parts: Mapping[str, Mapping]) -> dict[str, dict[str, float]]:
    """Half of Amuse's 95 % intervals, by `labelled`'s names."""
    intervals = labelled(parts, 'intervals')
    return bootstrap.margins(
        {label: row for label, row in intervals.items() if label.partition(': ')[0] == 'Amuse'}
    )


def _rows(parts: Mapping[str, Mapping]) -> dict[str, Mapping[str, float | str]]:
    """Every method's rows over the parts; Amuse's with their margins."""
    return tables.with_margins(labelled(parts, 'rows'), own_margins(parts), MARGIN)


def published_note(peers: Sequence[published.Published]) -> str:
    """Where published rows come from and what their mark means."""
    sources = ' and '.join(dict.fromkeys(row.source for row in peers))
    return (
        f'Rows with authors are as printed in {sources}. {published.MARK}: an average that is not '
        "the one over the test set's questions."
    )


def _csv_rows(scores: Mapping, peers: Sequence[published.Published]) -> dict[str, tables.Row]:
    """All rows of all parts with their intervals' bounds, and the published ones as printed."""
    rows = tables.with_bounds(*(labelled(scores['parts'], key) for key in ('rows', 'intervals')))
    return rows | {row.method: row.row for row in peers}


def _notes(scores: Mapping) -> list[str]:
    """What a reader has to know of the numbers, a sentence or two each."""
    notes = [INTERVAL_NOTE]
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
        summary = read_manifest(inputs[name])['summary']
        page.append(f'{name}\n\n```json\n{json.dumps(summary, indent=1)}\n```\n')
    page.append('## Accuracy per template\n\n' + (folder / 'templates.md').read_text())
    page.append('![accuracy per template](figures/templates.png)\n')
    page.append('## Examples (Fig. 4)\n')
    for path in sorted((folder / 'examples').iterdir()):
        # Names of videos hold '#', which would end the address, and may hold spaces.
        page.append(f'![{path.stem}](examples/{urllib.parse.quote(path.name)})\n')
    (folder / 'report.md').write_text('\n'.join(page))


def shown(folder: Path) -> str:
    """The finished stage's table and where its report is, for the terminal."""
    return f'\n{(folder / "table.txt").read_text()}\nreport: {folder / "report.md"}'
