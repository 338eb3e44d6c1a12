"""Translation of a checkpoint's names into the model's parameters by tables, checked both ways.

A table (bert.py, htsat.py, swin_v2.py) gives for each array in the checkpoint the parameter that it
becomes. `fill` checks that every array is used once or ignored for a stated reason, that every
parameter is filled once, and that the shapes agree. One error names the first few differences.
"""

import collections
import dataclasses
import os
import re
from collections.abc import Callable, Iterable, Mapping

import jax.numpy as jnp
import numpy as np
from flax import nnx

from amuse_jax.errors import StageError, first_few

Op = Callable[[list[np.ndarray]], np.ndarray]


class ConversionError(StageError):
    """The checkpoint and the model do not match; the message names the first few differences."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """How one parameter is computed from arrays in a checkpoint.

    Attributes:
      target: dotted path of the parameter.
      sources: names in the checkpoint, in groups: one group for each block of a stack, otherwise
        one group.
      op: computes one array from the arrays of a group.
      stacked: whether the results of the groups are stacked along a new first axis.
    """

    target: str
    sources: tuple[tuple[str, ...], ...]
    op: Op
    stacked: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """Translation of all names in one kind of checkpoint.

    Attributes:
      rules: one rule for each parameter.
      ignored: patterns of the names that are ignored -> the reason; a name must match in full.
    """

    rules: tuple[Rule, ...]
    ignored: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a table; `rules` turns it into a rule.

    Attributes:
      sources: names in the checkpoint, without the prefix.
      target: name of the parameter, without the prefix.
      op: computes the parameter from the arrays.
    """

    sources: tuple[str, ...]
    target: str
    op: Op


def same(arrays: list[np.ndarray]) -> np.ndarray:
    """Return the only array unchanged."""
    (array,) = arrays
    return array


def linear(arrays: list[np.ndarray]) -> np.ndarray:
    """Transpose PyTorch's (out, in) weights into (in, out) kernels and join them along `out`."""
    return np.concatenate([array.T for array in arrays], axis=1)


def joined(arrays: list[np.ndarray]) -> np.ndarray:
    """Join the biases of several linear layers into the bias of one layer."""
    return np.concatenate(arrays)


def flat(arrays: list[np.ndarray]) -> np.ndarray:
    """Flatten the only array to one axis."""
    return same(arrays).reshape(-1)


def patches(arrays: list[np.ndarray]) -> np.ndarray:
    """Flatten a convolution kernel: (out, in, height, width) -> (height * width * in, out)."""
    kernel = same(arrays)
    return kernel.transpose(2, 3, 1, 0).reshape(-1, len(kernel))


def first_row(arrays: list[np.ndarray]) -> np.ndarray:
    """Return the first row of the only array."""
    return same(arrays)[0]


def dense(sources: str | Iterable[str], target: str) -> list[Row]:
    """Return the rows of a linear layer; several layers in the checkpoint become one layer."""
    names = (sources,) if isinstance(sources, str) else tuple(sources)
    return [
        Row(tuple(f'{name}.weight' for name in names), f'{target}.kernel', linear),
        Row(tuple(f'{name}.bias' for name in names), f'{target}.bias', joined),
    ]


def norm(source: str, target: str) -> list[Row]:
    """Return the rows of a normalisation layer."""
    return [
        Row((f'{source}.weight',), f'{target}.scale', same),
        Row((f'{source}.bias',), f'{target}.bias', same),
    ]


def rules(
    rows: Iterable[Row], source_prefix: str = '', target_prefix: str = '', depth: int = 0
) -> list[Rule]:
    """Turn rows into rules by adding the prefixes.

    Args:
      rows: rows of a table.
      source_prefix: prefix of the names in the checkpoint, with its dot. If depth > 0, it contains
        `{}` in place of the block's number.
      target_prefix: prefix of the parameters, with its dot.
      depth: number of blocks in the stack that the rows describe; 0 if they describe no stack.
    """
    prefixes = [source_prefix.format(block) for block in range(depth)] if depth else [source_prefix]
    return [
        Rule(
            target_prefix + row.target,
            tuple(tuple(prefix + name for name in row.sources) for prefix in prefixes),
            row.op,
            depth > 0,
        )
        for row in rows
    ]


def fill(model: nnx.Module, source: Mapping[str, np.ndarray], table: Table) -> nnx.Module:
    """Return a model with every variable filled from the checkpoint.

    Args:
      model: a model with the same structure and shapes; an abstract one from `nnx.eval_shape` is
        enough.
      source: the checkpoint's arrays by name.
      table: the translation of the names.

    Returns:
      A new model with float32 variables.

    Raises:
      ConversionError: an array or a parameter is left over, missing or of another shape.
    """
    graphdef, state = nnx.split(model)
    flat_state = dict(nnx.to_flat_state(state))
    arrays = convert(model, source, table)
    filled = {
        path: leaf.replace(jnp.asarray(arrays['.'.join(map(str, path))]))
        for path, leaf in flat_state.items()
    }
    return nnx.merge(graphdef, nnx.from_flat_state(filled))


def convert(
    model: nnx.Module, source: Mapping[str, np.ndarray], table: Table
) -> dict[str, np.ndarray]:
    """Return the arrays of the model's variables by dotted name, in float32.

    Arguments and errors are those of `fill`. Nothing is computed on a device.
    """
    shapes = _shapes(dict(nnx.to_flat_state(nnx.state(model))))
    _refuse_foreign_names(source, table)
    arrays, problems = _convert(shapes, source, table)
    problems += _left_over(shapes, source, table)
    if problems:
        problems.sort(key=lambda problem: ('.kernel:' not in problem, problem))  # they tell most
        raise ConversionError(
            f'the checkpoint does not match the model ({len(problems)} differences):\n  '
            + first_few(problems, '\n  ')
            + '\nCheck that the sizes in the config are those of the checkpoint.'
        )
    return arrays


def differences(model: nnx.Module, source: Mapping[str, np.ndarray], table: Table) -> list[str]:
    """Return the differences that `fill` would report; none if the checkpoint matches the model."""
    shapes = _shapes(dict(nnx.to_flat_state(nnx.state(model))))
    return _convert(shapes, source, table)[1] + _left_over(shapes, source, table)


def _refuse_foreign_names(source: Mapping[str, np.ndarray], table: Table) -> None:
    """Refuse a checkpoint that has none of the names in the table."""
    expected = [name for rule in table.rules for group in rule.sources for name in group]
    if any(name in source for name in expected):
        return
    groups = collections.defaultdict(list)
    for name in source:
        groups[name.partition('.')[0]].append(name)
    beginnings = [
        f'{_beginning(names)} ({len(names)})'
        for names in sorted(groups.values(), key=len, reverse=True)
    ]
    raise ConversionError(
        f'none of the {len(source)} arrays in the checkpoint has a name of this model, such as '
        f'{expected[0]}; their names begin with {first_few(beginnings, ", ")}. If the model is '
        'among them under a prefix, save its arrays alone, without the prefix'
    )


def _beginning(names: list[str]) -> str:
    """Return what all names begin with, up to a dot; the name itself if it is the only one."""
    if len(names) == 1:
        return names[0]
    return os.path.commonprefix(names).rpartition('.')[0] + '.'


def _shapes(flat_state: Mapping[tuple, nnx.Variable]) -> dict[str, tuple[int, ...]]:
    return {'.'.join(map(str, path)): leaf.shape for path, leaf in flat_state.items()}


def _convert(shapes: Mapping[str, tuple], source: Mapping[str, np.ndarray], table: Table):
    """Return the parameters by name, and the problems found on the way."""
    parameters, problems = {}, []
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
        elif rule.target in parameters:
            problems.append(f'{rule.target}: filled twice')
        else:
            parameters[rule.target] = array.astype(np.float32)
    return parameters, problems


def _left_over(shapes: Mapping[str, tuple], source: Mapping[str, np.ndarray], table: Table):
    """Return the problems with names that the table uses twice or not at all."""
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
