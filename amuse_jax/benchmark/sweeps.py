"""Cost of a forward pass of the whole model against batch, questions, segments and resolution."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from ml_collections import ConfigDict

from amuse_jax.benchmark import whole
from amuse_jax.benchmark.comparison import Comparison
from amuse_jax.evaluation import figures

# Maps of all these resolutions are whole windows of 12 tokens where they are larger than one.
AXES = {
    'batch': (1, 2, 4, 8),
    'questions': (1, 2, 3, 5, 8),
    'segments': (1, 2, 5, 10, 20),
    'resolution': (96, 192, 288, 384),
}
LABELS = {
    'batch': 'videos, one question each',
    'questions': 'questions about one video',
    'segments': 'frames and segments of one video',
    'resolution': 'pixels on a side of 10 frames',
}


def at(config: ConfigDict, axis: str, value: int) -> Comparison:
    """A forward pass with one size set to `value`, the others the config's; without
    torch.compile."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        if axis == 'segments':
            config.data.segments = value
        if axis == 'resolution':
            config.data.image_size = config.model.visual.image_size = value
    return whole.forward(
        config,
        with_compile=False,
        videos=value if axis == 'batch' else 1,
        questions=value if axis == 'questions' else 1,
    )


def draw(found: Mapping[str, Sequence[Mapping]], path: Path) -> None:
    """Seconds of every side against each size that was swept, as a PNG.

    Args:
      found: points by axis, each with 'value', 'seconds' by side, 'dtype' and 'allocator'.
      path: the file.
    """
    figure = Figure(figsize=(3 * len(found), 2.8), layout='constrained')
    panels = figure.subplots(1, len(found), squeeze=False)[0]
    for axes, (axis, points) in zip(panels, found.items()):
        lines: dict[str, list[tuple[int, float]]] = {}
        for point in points:
            for side, seconds in point['seconds'].items():
                name = f'{side}, {point["dtype"]}, freed memory {point["allocator"]}'
                lines.setdefault(name, []).append((point['value'], seconds))
        for name, places in lines.items():
            axes.plot(*zip(*places), marker='o', ms=3, lw=1.2, label=name)
        axes.set_xlabel(LABELS[axis])
        axes.set_ylim(bottom=0)
    panels[0].set_ylabel('seconds')
    panels[0].legend(frameon=False, fontsize=7)
    figures.save(figure, path)
