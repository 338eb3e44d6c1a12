"""Cost of a forward pass of the whole model against its sizes, and of a training step against what
it keeps for its gradient."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from ml_collections import ConfigDict

from amuse_jax.benchmark import whole
from amuse_jax.benchmark.comparison import Comparison
from amuse_jax.evaluation import figures
from amuse_jax.models import remat

# Maps of all these resolutions are whole windows of 12 tokens where they are larger than one.
AXES = {
    'batch': (1, 2, 4),
    'questions': (1, 3, 5),
    'segments': (1, 5, 10),
    'resolution': (96, 192, 288),
    'kept': tuple(remat.POLICIES),
}
LABELS = {
    'batch': 'videos, one question each',
    'questions': 'questions about one video',
    'segments': 'frames and segments of one video',
    'resolution': 'pixels on a side of every frame',
    'kept': 'training step: what a layer keeps for its gradient',
}


def at(config: ConfigDict, axis: str, value: int | str) -> Comparison:
    """A forward pass, of 'kept' a training step, with one size set to `value`, the others the
    config's; without torch.compile."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        if axis == 'segments':
            config.data.segments = value
        if axis == 'resolution':
            config.data.image_size = config.model.visual.image_size = value
        if axis == 'kept':
            config.loop.kept = value
    if axis == 'kept':
        return whole.training_step(config, with_compile=False)
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
        lines: dict[str, list[tuple[int | str, float]]] = {}
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
