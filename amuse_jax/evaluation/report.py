"""The report of the evaluate stage: tables (text, Markdown, CSV), figures, report.{html,md}."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from tabulate import tabulate

from amuse_jax.evaluation import bootstrap, figures, published, quality, report_html, tables
from amuse_jax.system.manifest import read_manifest

MARGIN = '± 95 %'
INTERVAL_NOTE = (
    f'Accuracy in per cent; averages are over questions. {MARGIN} is half the width of the 95 % '
    f'interval of a bootstrap over test videos ({bootstrap.RESAMPLES:,} resamples).'
)


class Example(NamedTuple):
    """An example: its line of predictions.jsonl, and the PNG of its page."""

    line: Mapping
    page: Path


def write(
    folder: Path,
    inputs: Mapping[str, Path],
    scores: Mapping,
    templates: Sequence[Mapping],
    predictions: Sequence[Mapping],
    examples: Sequence[Example],
) -> None:
    """Write table.{txt,md,csv}, templates.{txt,md,csv}, figures/, and report.{html,md}.

    report.html shows everything and needs no other file; report.md refers to the other files.

    Args:
      folder: folder of the evaluate stage.
      inputs: folders of train, and of annotate, rois and pretrain if the model is made from them.
      scores: content of scores.json.
      templates: rows of tables.per_template.
      predictions: lines of predictions.jsonl for the test questions.
      examples: the examples, whose pages lie in the folder already.
    """
    peers = published.methods(scores['test_set']['published'])
    later = published.others_asked(scores)
    notes = [*table_notes(scores), *published.notes(peers)]
    others = {name: part for name, part in scores['parts'].items() if name != 'test'}
    displayed = [_rows({'test': scores['parts']['test']}) | published.marked(peers)]
    displayed += [_rows(others)] if others else []
    picture = 'figures/accuracy.png'
    tables.write(
        folder,
        [*displayed, *([published.other_table(later)] if later else [])],
        _csv_rows(scores, peers),
        [*notes, *published.other_notes(later)],
        picture,
    )
    if later:
        notes.append(f'table.md lists {len(later)} other published results.')
    tables.write_templates(folder, templates)
    figures.training_curves(inputs['train'] / 'metrics.jsonl', folder / 'figures/training.png')
    if 'importance' in predictions[0]:  # a peer has none
        figures.importance(predictions, folder / 'figures/importance.png')
    figures.template_marks(templates, folder / 'figures/templates.png')
    test = scores['parts']['test']
    figures.accuracy_bars(
        test['rows'],
        folder / picture,
        bootstrap.margins(test['intervals']),
        published.with_verdicts(peers),
    )
    markdown_tables = [tables.as_markdown(rows) + '\n' for rows in displayed]
    qualities = quality.make_tables(
        {
            name: read_manifest(inputs[name])['summary']
            for name in ('annotate', 'rois', 'pretrain')
            if name in inputs
        }
    )
    _write_markdown(folder, markdown_tables, notes, qualities, examples, scores['test_set'])
    report_html.write(
        folder / 'report.html',
        scores['parts'],
        peers,
        notes,
        templates,
        qualities,
        examples,
        folder / 'figures',
    )


def labelled(parts: Mapping[str, Mapping], key: str) -> dict[str, Mapping]:
    """Collect the 'rows' or 'intervals' of all methods from some parts of scores.json.

    The key is 'METHOD' for the test questions and 'METHOD: PART' for another part.
    """
    methods = dict.fromkeys(method for part in parts.values() for method in part[key])
    return {
        method if name == 'test' else f'{method}: {name}': part[key][method]
        for method in methods
        for name, part in parts.items()
        if method in part[key]
    }


def own_margins(parts: Mapping[str, Mapping]) -> dict[str, dict[str, float]]:
    """Return half the width of the model's 95 % intervals, under the names of `labelled`."""
    intervals = labelled(parts, 'intervals')
    own = tables.model_of(next(iter(parts.values())))
    return bootstrap.margins(
        {label: row for label, row in intervals.items() if label.partition(': ')[0] == own}
    )


def _rows(parts: Mapping[str, Mapping]) -> dict[str, Mapping[str, float | str]]:
    """Return the rows of every method for the parts, and the model's margins."""
    return tables.with_margins(labelled(parts, 'rows'), own_margins(parts), MARGIN)


def _csv_rows(scores: Mapping, peers: Sequence[published.Published]) -> dict[str, tables.Row]:
    """Return all rows with the bounds of their intervals, and the published rows as printed."""
    rows = tables.with_bounds(*(labelled(scores['parts'], key) for key in ('rows', 'intervals')))
    return rows | published.with_verdicts(peers)


def markdown_tables(scores: Mapping) -> list[str]:
    """Return the table of the test questions, and one of the other parts if there are any.

    They have the rows of the model with its margins and those of the baselines.
    """
    others = {name: part for name, part in scores['parts'].items() if name != 'test'}
    groups = [{'test': scores['parts']['test']}, *([others] if others else [])]
    return [tables.as_markdown(_rows(parts)) + '\n' for parts in groups]


def table_notes(scores: Mapping) -> list[str]:
    """Return the notes under the table, one or two sentences each."""
    notes = [INTERVAL_NOTE, *scores['model'].get('notes', ())]
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


def _write_markdown(
    folder: Path,
    markdown_tables: Sequence[str],
    notes: Sequence[str],
    qualities: Sequence[quality.Table],
    examples: Sequence[Example],
    test_set: Mapping,
) -> None:
    """Write report.md.

    `markdown_tables` are the table of the test questions and, where there are any, of their parts.
    """
    page = (
        report_html.make_environment()
        .get_template('report.md.jinja')
        .render(
            questions=test_set['questions'],
            tables=markdown_tables,
            notes=notes,
            quality=qualities,
            has_importance=(folder / 'figures/importance.png').exists(),
            templates=(folder / 'templates.md').read_text('utf-8'),
            examples=_list_examples(folder, examples),
        )
    )
    (folder / 'report.md').write_text(page, 'utf-8')


def _list_examples(folder: Path, examples: Sequence[Example]) -> str:
    """Return a Markdown table of the examples with links to their pages; '' if there is none."""
    rows = []
    for line, page in examples:
        address = quote(page.relative_to(folder).as_posix())
        rows.append(
            {
                'question': f'[{_escape(line["question"])}]({address})',
                'type': f'{line["modality"]} {line["kind"]}',
                'answer': line['predicted'],
                'true answer': line['answer'],
            }
        )
    return tabulate(rows, headers='keys', tablefmt='github', disable_numparse=True) if rows else ''


def _escape(text: str) -> str:
    """Return text for a cell of a Markdown table, where it means nothing but itself."""
    return re.sub(r'([\\`*_\[\]<>|&])', r'\\\1', ' '.join(text.split()))


def format_summary(folder: Path) -> str:
    """Return the table and the path of the report, for the terminal."""
    return f'\n{(folder / "table.txt").read_text("utf-8")}\nreport: {folder / "report.html"}'
