"""Sweeps: the cost of a forward pass over one size, and of a training step over `remat_policy`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from ml_collections import ConfigDict

from amuse_jax.benchmark import whole
from amuse_jax.benchmark.comparison import Comparison
from amuse_jax.evaluation.page import canvas
from amuse_jax.models import remat

# At all these resolutions, a map that is larger than one window of 12 tokens holds whole windows.
AXES = {
    'batch': (1, 2, 4),
    'questions': (1, 3, 5),
    'segments': (1, 5, 10),
    'resolution': (96, 192, 288),
    'remat_policy': tuple(remat.POLICIES),
}
LABELS = {
    'batch': 'videos, one question each',
    'questions': 'questions about one video',
    'segments': 'frames and segments of one video',
    'resolution': 'pixels on a side of every frame',
    'remat_policy': 'training step: what a layer keeps for its gradient',
}


def comparison_at(config: ConfigDict, axis: str, value: int | str) -> Comparison:
    """Return the forward pass, or for 'remat_policy' the training step, with one setting changed.

    The setting `axis` is `value`; the others are the config's. torch.compile is not measured.
    """
    config = config.copy_and_resolve_references()
    with config.unlocked():
        if axis == 'segments':
            config.data.segments = value
        if axis == 'resolution':
            config.data.image_size = config.model.visual.image_size = value
        if axis == 'remat_policy':
            config.loop.remat_policy = value
    if axis == 'remat_policy':
        return whole.training_step(config, with_compile=False)
    return whole.forward(
        config,
        with_compile=False,
        videos=value if axis == 'batch' else 1,
        questions=value if axis == 'questions' else 1,
    )


def plot(points_by_axis: Mapping[str, Sequence[Mapping]], path: Path) -> None:
    """Plot the seconds of every side over each swept setting, as a PNG.

    Args:
      points_by_axis: points by axis, each with 'value', 'seconds' by side, 'dtype' and 'allocator'.
      path: the file.
    """
    figure = Figure(figsize=(3 * len(points_by_axis), 2.8), layout='constrained')
    panels = figure.subplots(1, len(points_by_axis), squeeze=False)[0]
    for axes, (axis, points) in zip(panels, points_by_axis.items()):
        lines: dict[str, list[tuple[int | str, float]]] = {}
        for point in points:
            for side, seconds in point['seconds'].items():
                name = f'{side}, {point["dtype"]}, freed memory {point["allocator"]}'
                lines.setdefault(name, []).append((point['value'], seconds))
        for name, line in lines.items():
            axes.plot(*zip(*line), marker='o', ms=3, lw=1.2, label=name)
        axes.set_xlabel(LABELS[axis])
        axes.set_ylim(bottom=0)
    panels[0].set_ylabel('seconds')
    panels[0].legend(frameon=False, fontsize=7)
    canvas.save(figure, path)
