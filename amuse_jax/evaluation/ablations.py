"""Table 4 of the paper: the whole model, and four models without one of its parts."""

from collections.abc import Mapping
from pathlib import Path

from amuse_jax.evaluation import comparison, published, tables

# The part that is left out -> name of the row in the paper.
ROWS = {
    'encoder': 'w/o M.i.e.',
    'rhythm': 'w/o Rhy.',
    'sources': 'w/o Src.',
    'rois': 'w/o RoIs',
    '': 'Amuse',
}


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
    printed = published.ablations(scores[ROWS['']]['test_set']['published'])
    return comparison.write(folder, scores, printed)
