"""The benchmark's figures: lines and tables of text, and the file in which they are saved."""

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

import jax
import tabulate
from ml_collections import ConfigDict

from amuse_jax.benchmark import comparison
from amuse_jax.errors import StageError
from amuse_jax.system import cpus
from amuse_jax.system.files import write_json

_KEYS = ('work', 'dtype', 'allocator')  # a row replaces an earlier one with the same values
_GIB = 2**30
GOAL_FOR_FIVE_QUESTIONS = 3.7  # goal for five questions about a video, in times of one question
_HEADINGS = {
    comparison.WORK: 'The same work on every side:',
    comparison.RESULT: 'The same result, each side in its best way:',
    '': 'JAX alone:',
}


class Figures:
    """The figures of one machine at the sizes of one config; they are saved after every row.

    Rows of earlier runs stay until they are measured again, so a long run can be split into several
    shorter ones.

    Args:
      path: the JSON file.
      config: the sizes.

    Raises:
      StageError: the file holds figures of another machine or of other sizes.
    """

    def __init__(self, path: Path, config: ConfigDict):
        self._path = path
        sizes = config.to_json(sort_keys=True)
        identity = {
            'machine': machine_name(),
            'config': config.name,
            'sizes': hashlib.sha256(sizes.encode()).hexdigest()[:16],
        }
        self._content = identity | {'products': {}, 'rows': [], 'sweeps': {}}
        if path.exists():
            before = json.loads(path.read_text('utf-8'))
            for name, value in identity.items():
                if before[name] != value:
                    raise StageError(
                        f'{path} holds figures for {name} {before[name]}, expected {value}; '
                        'choose another --out'
                    )
            self._content = {'products': {}} | before

    @property
    def rows(self) -> list[dict]:
        """The rows of the tables."""
        return self._content['rows']

    @property
    def sweeps(self) -> dict[str, list[dict]]:
        """The points of the sweeps, by axis."""
        return self._content['sweeps']

    def add(self, row: dict) -> None:
        """Save a row; it replaces an earlier row of the same work."""
        _put(self.rows, row, _KEYS)
        write_json(self._path, self._content)

    def add_products(self, dtype: str, rates: Mapping[str, float]) -> None:
        """Save the rates of the matrix products with which rows of `dtype` are compared."""
        self._content['products'][dtype] = dict(rates)
        write_json(self._path, self._content)

    def add_to_sweep(self, axis: str, row: dict) -> None:
        """Save a point of a sweep; `row['value']` is its position on the axis."""
        points = self.sweeps.setdefault(axis, [])
        _put(points, row, (*_KEYS, 'value'))
        points.sort(key=lambda point: point['value'])
        write_json(self._path, self._content)


def _put(rows: list[dict], row: dict, keys: Sequence[str]) -> None:
    for index, other in enumerate(rows):
        if all(other.get(key) == row.get(key) for key in keys):
            rows[index] = row
            return
    rows.append(row)


def machine_name() -> str:
    """Return the name of the processor or accelerator on which the figures are measured."""
    device = jax.devices()[0]
    if device.platform != 'cpu':
        return f'{jax.device_count()} x {device.device_kind}'
    try:
        lines = Path('/proc/cpuinfo').read_text('utf-8').splitlines()
        name = next(line.split(':')[1].strip() for line in lines if line.startswith('model name'))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f'{cpus.usable()} cores of {name}'


def package_versions(*packages: str) -> dict[str, str]:
    """Return the installed versions of packages, by name."""
    return {name: metadata.version(name) for name in packages}


def format_products(dtype: str, rates: Mapping[str, float]) -> str:
    """Return the rates of matrix products as one line."""
    each = '; '.join(f'{name} {rate / 1e9:.0f} GFLOP/s' for name, rate in rates.items())
    return f'matrix products [{dtype}]: {each}'


def format_row(row: Mapping) -> str:
    """Return a row as one line of text."""
    parts = [
        f'{side} {_seconds(value)} (±{row["spread"][side]:.0%})'
        for side, value in row.get('seconds', {}).items()
    ]
    parts += [
        f'{value:.2f} times as fast as {side}'
        for side, value in row.get('times_faster', {}).items()
    ]
    if row.get('planned_bytes', {}).get('JAX'):
        planned = row['planned_bytes']['JAX'] / _GIB
        parts.append(f'JAX plans {planned:.2g} GiB in addition to its inputs')
    if 'share_of_peak' in row:
        parts.append(f'{row["share_of_peak"]:.0%} of the fastest product')
    if 'of_one_question' in row:
        parts.append(
            f'five questions in {row["of_one_question"]:.2f} times the time of one '
            f'({_seconds(row["one_question_seconds"])}; goal: at most {GOAL_FOR_FIVE_QUESTIONS})'
        )
    for name in ('watching', 'first_question'):
        each = row.get(f'{name}_seconds', {})
        parts += [f'{name.replace("_", " ")} {side} {_seconds(s)}' for side, s in each.items()]
    if 'flops' not in row and 'samples_per_second' in row:
        parts.append(f'{row["samples_per_second"]["JAX"]:.3g} samples/s')
    if 'from_cache_seconds' in row:
        compiling = row['compile_seconds']['JAX']
        parts.append(f'{compiling:.1f} s, from the cache {row["from_cache_seconds"]:.1f} s')
    value = f' = {row["value"]}' if 'value' in row else ''  # a point of a sweep
    return f'{row["work"]}{value} [{row["dtype"]}, {row["allocator"]}]: ' + '; '.join(parts)


def format_tables(rows: Sequence[Mapping]) -> str:
    """Return one table per kind of row: equal work must not be confused with equal results."""
    tables = []
    for kind, heading in _HEADINGS.items():
        if chosen := [row for row in rows if row.get('kind', '') == kind]:
            tables.append(f'{heading}\n\n{format_table(chosen)}')
    return '\n\n'.join(tables)


def format_table(rows: Sequence[Mapping]) -> str:
    """Return rows as a Markdown table.

    It has the seconds of each side with their spread (half the interquartile range), how many times
    as fast JAX is as each other side, and all further figures of JAX. Empty columns are left out.
    """
    sides = list(dict.fromkeys(side for row in rows for side in row.get('seconds', ())))
    lines = []
    for row in rows:
        seconds, spread = row.get('seconds', {}), row.get('spread', {})
        cells = {'work': row['work'], 'dtype': row['dtype'], 'freed memory': row['allocator']}
        for side in sides:
            cells[f'{side} s'] = (
                f'{_number(seconds[side])} ±{spread[side]:.0%}' if side in seconds else ''
            )
        for side in sides[1:]:
            cells[f'x {side}'] = _number(row.get('times_faster', {}).get(side))
        peaks = row.get('peak_bytes', {})
        lines.append(
            cells
            | {
                'samples/s': _number(row.get('samples_per_second', {}).get('JAX')),
                'GFLOP/s': _number(row.get('flops_per_second'), 1e-9),
                'of peak': f'{row["share_of_peak"]:.0%}' if 'share_of_peak' in row else '',
                **{f'{side} GiB': _number(peaks.get(side), 1 / _GIB) for side in sides},
                'compile s': _number(row.get('compile_seconds', {}).get('JAX')),
                'from cache s': _number(row.get('from_cache_seconds')),
                'x one question': _number(row.get('of_one_question')),
            }
        )
    filled = [name for name in lines[0] if any(each[name] for each in lines)] if lines else []
    lines = [{name: each[name] for name in filled} for each in lines]
    return tabulate.tabulate(lines, headers='keys', tablefmt='github', disable_numparse=True)


def _seconds(value: float) -> str:
    return f'{value:.3g} s'


def _number(value: float | None, scale: float = 1.0) -> str:
    return '' if value is None else f'{value * scale:.3g}'
