"""Table 2 of the paper, run: Amuse, its peers and the baselines on the same test questions."""

from collections.abc import Mapping
from pathlib import Path

from amuse_jax.errors import StageError
from amuse_jax.evaluation import comparison, published, tables

STAND_INS_NOTE = (
    "The inputs of other projects' frozen networks (VGGish, ResNet-18, CLIP, AST and the large "
    "towers) are replaced by those of this run's own small encoders: the numbers say nothing about "
    'the systems at their published sizes.'
)


def write(folder: Path, evaluated: Mapping[str, Path]) -> str:
    """Write a row for Amuse, for every peer and for the baselines; see comparison.write.

    Args:
      folder: folder to write to.
      evaluated: the finished evaluate folders by the name of the row; the first one is Amuse's.

    Returns:
      The table for a terminal.

    Raises:
      StageError: the models were asked different numbers of test questions.
    """
    scores = {name: tables.read_scores(path) for name, path in evaluated.items()}
    counts = {name: each['test_set']['questions'] for name, each in scores.items()}
    if len(set(counts.values())) > 1:
        listed = ', '.join(f'{name} {count:,}' for name, count in counts.items())
        raise StageError(
            f'the models were asked different test questions ({listed}); run --stages=peers with '
            'one config and one workdir'
        )
    first = next(iter(scores.values()))
    _, *baselines = first['parts']['test']['rows']
    notes = dict.fromkeys(
        note for each in scores.values() for note in each['model'].get('notes', ())
    )
    return comparison.write(
        folder,
        scores,
        published.methods(first['test_set']['published']),
        baselines,
        list(notes),
    )
