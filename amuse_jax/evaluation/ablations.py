"""Table 4: the whole model beside the four without one of its parts."""

import json
from collections.abc import Mapping
from pathlib import Path

from amuse_jax.evaluation import figures, tables

# The paper's names of its rows.
ROWS = {
    'encoder': 'w/o M.i.e.',
    'rhythm': 'w/o Rhy.',
    'sources': 'w/o Src.',
    'rois': 'w/o RoIs',
    '': 'Amuse',
}


def write(folder: Path, evaluated: Mapping[str, Path]) -> str:
    """Collects the variants' rows into table.{txt,md,csv} and a figure.

    Args:
      folder: where they go.
      evaluated: the finished evaluate folder of each left-out part; '' for the whole model.

    Returns:
      The table for a terminal.
    """
    rows = {
        name: json.loads((evaluated[part] / 'scores.json').read_text())['Amuse']
        for part, name in ROWS.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    text = tables.as_text(rows)
    (folder / 'table.txt').write_text(text + '\n')
    (folder / 'table.md').write_text(tables.as_markdown(rows) + '\n')
    (folder / 'table.csv').write_text(tables.as_csv(rows))
    figures.accuracy_bars(rows, folder / 'accuracy.png')
    return f'\n{text}\n\ntable: {folder / "table.md"}'
