"""report.html: all results of a run on one page that needs no other file and no network."""

import base64
import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import jinja2
from PIL import Image

from amuse_jax.evaluation import published, tables
from amuse_jax.evaluation.page import canvas
from amuse_jax.evaluation.quality import Table
from amuse_jax.music_avqa import vocabulary

WEBP_QUALITY = 82  # of example pages; figures are stored without loss
# The first word of a column of tables.COLUMNS -> heading above its columns.
MODALITIES = {'A': 'Audio', 'V': 'Visual', 'AV': 'Audio-visual', 'Avg': 'All'}


class Picture(NamedTuple):
    """A picture as a data URI, with its size in pixels."""

    uri: str
    width: int
    height: int


class Cell(NamedTuple):
    """A cell of the accuracy table: the accuracy, and half the width of its interval or ''."""

    value: str
    margin: str


def make_environment() -> jinja2.Environment:
    """Return the environment of the report's templates; those for HTML escape what they insert."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader('amuse_jax.evaluation', ''),
        autoescape=jinja2.select_autoescape(['html.jinja'], default=False),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def write(
    path: Path,
    parts: Mapping[str, Mapping],
    peers: Sequence[published.Published],
    notes: Sequence[str],
    templates: Sequence[Mapping],
    quality: Sequence[Table],
    examples: Sequence[tuple[Mapping, Path]],
    figures: Path,
) -> None:
    """Write the page.

    Args:
      path: the file to write.
      parts: 'parts' of scores.json.
      peers: published rows for the same test set.
      notes: explanations of the accuracy table, one paragraph each.
      templates: rows of tables.per_template.
      quality: tables of the annotators, the detector and the encoder.
      examples: for each example its line of predictions.jsonl and the PNG of its page.
      figures: folder with the figures.
    """
    environment = make_environment()
    script, style = read_part('report.js'), read_part('report.css')
    others = {name: part for name, part in parts.items() if name != 'test'}
    kinds = [' '.join(kind) for kind in vocabulary.TYPES]
    shown = [_describe(line, page) for line, page in examples]
    text = environment.get_template('report.html.jinja').render(
        style=style,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        questions=parts['test']['questions'],
        headline=_headline(parts['test']),
        groups=_groups(),
        columns=[column.split(' ')[-1] for column in tables.COLUMNS],
        column_names=list(tables.COLUMNS),
        rows=_rows({'test': parts['test']}) | _published_rows(peers),
        own=list(parts['test']['rows'])[0],
        other_rows=_rows(others),
        notes=notes,
        methods=[name for name in templates[0] if name not in tables.TEMPLATE_FIELDS],
        templates=[row | {'template': canvas.usual_signs(row['template'])} for row in templates],
        quality=quality,
        examples=shown,
        kinds=[kind for kind in kinds if any(each['kind'] == kind for each in shown)],
        figures={
            name: embed(figures / f'{name}.png', is_lossless=True)
            for name in ('accuracy', 'importance', 'training')
            if (figures / f'{name}.png').exists()
        },
    )
    path.write_text(text, 'utf-8')


def read_part(name: str) -> str:
    """Read the page's style or script, which stand beside this file."""
    return resources.files('amuse_jax.evaluation').joinpath(name).read_text('utf-8')


def embed(path: Path, is_lossless: bool) -> Picture:
    """Read a PNG and return it as WebP in a data URI, which is smaller."""
    with Image.open(path) as image:
        file = io.BytesIO()
        options = {'lossless': True} if is_lossless else {'quality': WEBP_QUALITY}
        image.convert('RGB').save(file, 'WEBP', method=4, **options)
        data = base64.b64encode(file.getvalue()).decode()
        return Picture(f'data:image/webp;base64,{data}', image.width, image.height)


def _headline(test: Mapping) -> list[tuple[str, str, str]]:
    """Return the overall accuracy of every method and its interval: (method, value, interval)."""
    result = []
    for method, row in test['rows'].items():
        low, high = test['intervals'][method]['Avg']
        result.append((method, f'{row["Avg"]:.1f} %', f'{low:.1f} to {high:.1f}'))
    return result


def _groups() -> list[tuple[str, int]]:
    """Return the headings above the columns and the number of columns below each."""
    prefixes = [column.split(' ')[0] for column in tables.COLUMNS]
    return [(MODALITIES[prefix], prefixes.count(prefix)) for prefix in dict.fromkeys(prefixes)]


def _rows(parts: Mapping[str, Mapping]) -> dict[str, list[Cell]]:
    """Return the cells of every method; the key is 'METHOD', or 'METHOD: PART' but for the test."""
    result = {}
    for part_name, part in parts.items():
        for method, row in part['rows'].items():
            name = method if part_name == 'test' else f'{method}: {part_name}'
            intervals = part['intervals'][method]
            result[name] = [_cell(row[column], intervals[column]) for column in tables.COLUMNS]
    return result


def _cell(value: float, interval: Sequence[float]) -> Cell:
    if math.isnan(value):
        return Cell('-', '')
    low, high = interval
    return Cell(f'{value:.2f}', f'±{(high - low) / 2:.1f}')


def _published_rows(peers: Sequence[published.Published]) -> dict[str, list[Cell]]:
    return {
        method: [
            Cell(row[column], '') if isinstance(row[column], str) else _printed(row[column])
            for column in tables.COLUMNS
        ]
        for method, row in published.marked(peers).items()
    }


def _printed(value: float) -> Cell:
    return Cell('-' if math.isnan(value) else f'{value:.2f}', '')


def _describe(line: Mapping, page: Path) -> dict:
    """Return what the template shows of an example."""
    is_correct = line['predicted'] == line['answer']
    best = max(line['probabilities'])
    streams = sorted(line['importance'].items(), key=lambda item: -item[1])[:3]
    listed = ', '.join(f'{name} {canvas.percent(weight)}' for name, weight in streams)
    return {
        'kind': f'{line["modality"]} {line["kind"]}',
        'result': 'correct' if is_correct else 'wrong',
        'question': canvas.usual_signs(line['question']),
        'answer': line['answer'].replace('_', ' '),
        'predicted': line['predicted'].replace('_', ' '),
        'probability': canvas.percent(best),
        'streams': listed.replace('_', ' '),
        'video': line['video_id'],
        'picture': embed(page, is_lossless=False),
    }
