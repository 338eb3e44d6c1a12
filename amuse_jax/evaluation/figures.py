"""Figures of a run.

They show training curves, importance per question type (Fig. 5), and accuracy per question type and
per template.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from amuse_jax.evaluation import tables
from amuse_jax.evaluation.page import canvas
from amuse_jax.music_avqa import vocabulary


def training_curves(metrics: Path, path: Path) -> None:
    """Plot loss and accuracy over steps, for training and validation.

    Args:
      metrics: metrics.jsonl of the train stage.
      path: the PNG to write.
    """
    lines = [json.loads(line) for line in metrics.read_text('utf-8').splitlines()]
    figure = Figure(figsize=(9, 3.2), layout='constrained')
    loss, accuracy = figure.subplots(1, 2)
    for axes, names in ((loss, ('loss', 'val_loss')), (accuracy, ('accuracy', 'val_accuracy'))):
        for name in names:
            points = [(line['step'], line[name]) for line in lines if name in line]
            if points:
                axes.plot(*zip(*points), label=name.replace('_', ' '), lw=1.2)
        axes.set_xlabel('step')
        if axes.lines:
            axes.legend(frameon=False)
    loss.set_ylabel('cross-entropy')
    accuracy.set_ylabel('accuracy')
    canvas.save(figure, path)


def importance(predictions: Sequence[Mapping], path: Path) -> None:
    """Plot Fig. 5: the mean importance of every stream (x) for every question type (y).

    Args:
      predictions: rows of predictions.jsonl, with 'modality', 'kind' and 'importance' by stream.
      path: the PNG to write.
    """
    streams = list(predictions[0]['importance'])
    names, rows = [], []
    for modality, kind in vocabulary.TYPES:
        chosen = [p for p in predictions if (p['modality'], p['kind']) == (modality, kind)]
        if chosen:
            names.append(f'{modality} {kind}')
            rows.append([np.mean([p['importance'][s] for p in chosen]) for s in streams])
    figure = Figure(
        figsize=(1.1 * len(streams) + 2.5, 0.45 * len(rows) + 1.6), layout='constrained'
    )
    axes = figure.subplots()
    image = axes.imshow(rows, cmap='Blues', vmin=0, aspect='auto')
    axes.set_xticks(range(len(streams)), [s.replace('_', '\n') for s in streams])
    axes.set_yticks(range(len(names)), names)
    darkest = 0.55 * np.max(rows)  # text on darker cells is white
    for y, row in enumerate(rows):
        for x, value in enumerate(row):
            style = {'color': 'w' if value > darkest else canvas.INK, 'fontsize': 8}
            axes.text(x, y, f'{value:.2f}', ha='center', va='center', **style)
    figure.colorbar(image, label='importance')
    canvas.save(figure, path)


def accuracy_bars(
    rows: Mapping[str, Mapping[str, float]],
    path: Path,
    margins: Mapping[str, Mapping[str, float]] | None = None,
    published: Mapping[str, Mapping[str, float]] | None = None,
) -> None:
    """Plot the accuracy per question type as one bar for each method.

    Args:
      rows: accuracies by method; each method has its own colour.
      path: the PNG to write.
      margins: half the length of the error bars, by method; other methods have no error bars.
      published: accuracies of published methods, drawn as marks over the bars.
    """
    margins, published = margins or {}, published or {}
    columns = [*tables.TYPE_COLUMNS, 'Avg']
    height = 3.4 + 0.25 * -(-(len(rows) + len(published)) // 4)
    figure = Figure(figsize=(10, height), layout='constrained')
    axes = figure.subplots()
    width = 0.8 / len(rows)
    for index, (method, row) in enumerate(rows.items()):
        places = np.arange(len(columns)) + (index - (len(rows) - 1) / 2) * width
        errors = [margins[method][column] for column in columns] if method in margins else None
        heights = [row[column] for column in columns]
        axes.bar(places, heights, width, yerr=errors, error_kw={'lw': 0.8}, label=method)
    for index, (method, row) in enumerate(published.items()):
        heights = [row[column] for column in columns]
        mark = Line2D.filled_markers[index + 1]  # the first marker, a point, is left out
        axes.plot(
            range(len(columns)), heights, ls='', marker=mark, ms=4, c=f'{index / 10}', label=method
        )
    axes.set_xticks(range(len(columns)), columns)
    axes.set_ylabel('accuracy, %')
    axes.set_ylim(0, 100)
    figure.legend(loc='outside upper center', frameon=False, ncols=4)
    axes.spines[['top', 'right']].set_visible(False)
    canvas.save(figure, path)


def template_marks(rows: Sequence[Mapping], path: Path) -> None:
    """Plot the accuracy per template: one line per template, with one mark for each method.

    Args:
      rows: the rows of tables.per_template.
      path: the PNG to write.
    """
    figure = Figure(figsize=(10, 0.26 * len(rows) + 1.4), layout='constrained')
    axes = figure.subplots()
    for index, method in enumerate(name for name in rows[0] if name not in tables.TEMPLATE_FIELDS):
        mark = Line2D.filled_markers[index + 1]
        axes.plot([row[method] for row in rows], range(len(rows)), mark, ms=5, label=method)
    labels = [f'{canvas.usual_signs(row["template"])} ({row["questions"]})' for row in rows]
    axes.set_yticks(range(len(rows)), labels)
    axes.invert_yaxis()
    axes.set_xlabel('accuracy, %')
    axes.set_xlim(-2, 102)
    axes.grid(axis='y', lw=0.4)
    figure.legend(loc='outside upper center', frameon=False, ncols=4)
    axes.spines[['top', 'right']].set_visible(False)
    canvas.save(figure, path)
