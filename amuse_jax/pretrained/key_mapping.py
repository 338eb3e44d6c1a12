"""Fills a model from a checkpoint by a table of names, and accepts no difference in silence.

A table says for every array of the checkpoint which parameter it becomes. It is checked both ways:
each source is used once or ignored for a stated reason, each parameter is filled once, and shapes
agree. One error names everything that does not.
"""

import collections
import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping

import jax.numpy as jnp
import numpy as np
from flax import nnx

from amuse_jax.errors import StageError

Op = Callable[[list[np.ndarray]], np.ndarray]


class ConversionError(StageError):
    """The checkpoint and the model do not fit; the message lists every difference."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """How one parameter is made.

    Attributes:
      target: dotted path of the parameter.
      sources: names in the checkpoint; one group per block of a stack, else one group.
      op: makes an array of a group's arrays.
      stacked: whether the results of the groups are stacked along a new first axis.
    """

    target: str
    sources: tuple[tuple[str, ...], ...]
    op: Op
    stacked: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """Rules of one naming, and patterns (full match) of ignored names, each with its reason."""

    rules: tuple[Rule, ...]
    ignored: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a table: their names and our name below a common prefix."""

    theirs: tuple[str, ...]
    ours: str
    op: Op


def same(arrays: list[np.ndarray]) -> np.ndarray:
    (array,) = arrays
    return array


def linear(arrays: list[np.ndarray]) -> np.ndarray:
    """PyTorch's (out, in) weights -> one (in, out) kernel, side by side if there are several."""
    return np.concatenate([array.T for array in arrays], axis=1)


def joined(arrays: list[np.ndarray]) -> np.ndarray:
    """Biases of linear layers that became one layer."""
    return np.concatenate(arrays)


def flat(arrays: list[np.ndarray]) -> np.ndarray:
    """Any shape -> one axis."""
    return same(arrays).reshape(-1)


def patches(arrays: list[np.ndarray]) -> np.ndarray:
    """Convolution kernel (out, in, height, width) -> (height * width * in, out)."""
    kernel = same(arrays)
    return kernel.transpose(2, 3, 1, 0).reshape(-1, len(kernel))


def first_row(arrays: list[np.ndarray]) -> np.ndarray:
    return same(arrays)[0]


def dense(theirs: str | Iterable[str], ours: str) -> list[Row]:
    """Rows of a linear layer; several of theirs become one of ours."""
    names = (theirs,) if isinstance(theirs, str) else tuple(theirs)
    return [
        Row(tuple(f'{name}.weight' for name in names), f'{ours}.kernel', linear),
        Row(tuple(f'{name}.bias' for name in names), f'{ours}.bias', joined),
    ]


def norm(theirs: str, ours: str) -> list[Row]:
    """Rows of a normalisation."""
    return [
        Row((f'{theirs}.weight',), f'{ours}.scale', same),
        Row((f'{theirs}.bias',), f'{ours}.bias', same),
    ]


def rules(rows: Iterable[Row], theirs: str = '', ours: str = '', depth: int = 0) -> list[Rule]:
    """Turns rows into rules.

    Args:
      rows: lines of the table.
      theirs, ours: prefixes, with their dots; `theirs` holds `{}` for the block if depth > 0.
      depth: blocks of the stack that the rows describe, 0 for a part outside any stack.
    """
    prefixes = [theirs.format(block) for block in range(depth)] if depth else [theirs]
    return [
        Rule(
            ours + row.ours,
            tuple(tuple(prefix + name for name in row.theirs) for prefix in prefixes),
            row.op,
            depth > 0,
        )
        for row in rows
    ]


def fill(model: nnx.Module, source: Mapping[str, np.ndarray], table: Table) -> nnx.Module:
    """A model whose every variable comes from the checkpoint.

    Args:
      model: gives structure and shapes; `nnx.eval_shape` of one will do.
      source: arrays of the checkpoint by name.
      table: their names and ours.
    Returns:
      A new model with float32 variables.
    Raises:
      ConversionError: anything of the checkpoint or the model is left over, missing or of another
        shape.
    """
    graphdef, state = nnx.split(model)
    flat_state = dict(nnx.to_flat_state(state))
    made, problems = _make(_shapes(flat_state), source, table)
    problems += _left_over(_shapes(flat_state), source, table)
    if problems:
        raise ConversionError(
            f'the checkpoint does not fit the model ({len(problems)} differences):\n  '
            + '\n  '.join(sorted(problems))
            + '\nCheck that the sizes in the config are those of the checkpoint.'
        )
    filled = {
        path: leaf.replace(jnp.asarray(made['.'.join(map(str, path))]))
        for path, leaf in flat_state.items()
    }
    return nnx.merge(graphdef, nnx.from_flat_state(filled))


def differences(model: nnx.Module, source: Mapping[str, np.ndarray], table: Table) -> list[str]:
    """What `fill` would refuse; empty if the checkpoint fits the model."""
    shapes = _shapes(dict(nnx.to_flat_state(nnx.state(model))))
    return _make(shapes, source, table)[1] + _left_over(shapes, source, table)


def _shapes(flat_state: Mapping[tuple, nnx.Variable]) -> dict[str, tuple[int, ...]]:
    return {'.'.join(map(str, path)): leaf.shape for path, leaf in flat_state.items()}


def _make(shapes: Mapping[str, tuple], source: Mapping[str, np.ndarray], table: Table):
    made, problems = {}, []
    for rule in table.rules:
        missing = [name for group in rule.sources for name in group if name not in source]
        problems += [f'{name}: not in the checkpoint, needed for {rule.target}' for name in missing]
        if missing:
            continue
        if rule.target not in shapes:
            problems.append(f'{rule.target}: not in the model')
            continue
        try:
            arrays = [
                rule.op([np.asarray(source[name]) for name in group]) for group in rule.sources
            ]
            array = np.stack(arrays) if rule.stacked else same(arrays)
        except ValueError as error:
            problems.append(f'{rule.target}: the arrays {rule.sources[0]} do not fit: {error}')
            continue
        if array.shape != shapes[rule.target]:
            shape = shapes[rule.target]
            problems.append(f'{rule.target}: {array.shape} in the checkpoint, {shape} expected')
        elif not np.issubdtype(array.dtype, np.floating):
            problems.append(f'{rule.target}: {array.dtype} in the checkpoint, floats expected')
        elif rule.target in made:
            problems.append(f'{rule.target}: filled twice')
        else:
            made[rule.target] = array.astype(np.float32)
    return made, problems


def _left_over(shapes: Mapping[str, tuple], source: Mapping[str, np.ndarray], table: Table):
    targets = {rule.target for rule in table.rules}
    used = collections.Counter(
        name for rule in table.rules for group in rule.sources for name in group
    )
    problems = [f'{name}: used twice' for name, times in used.items() if times > 1]
    problems += [f'{name}: not filled by the checkpoint' for name in shapes if name not in targets]
    for name in source.keys() - used.keys():
        if not any(re.fullmatch(pattern, name) for pattern in table.ignored):
            shape = np.shape(source[name])
            problems.append(f'{name} {shape}: in the checkpoint, neither used nor ignored')
    return problems
