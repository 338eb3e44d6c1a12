"""The benchmark's figures: a line per row, a table, and the file that keeps them."""

import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

import jax
import tabulate
from ml_collections import ConfigDict

from amuse_jax.benchmark import comparison
from amuse_jax.errors import StageError
from amuse_jax.system.files import write_json

_KEYS = ('work', 'dtype', 'allocator')  # rows that agree in them replace each other
_GIB = 2**30
MOST_OF_ONE_QUESTION = 3.7  # the goal for five questions about a video, beside one
_HEADINGS = {
    comparison.WORK: 'The same work on every side:',
    comparison.RESULT: 'The same result, by sharing and storing on the side of JAX:',
    '': 'JAX alone:',
}


class Figures:
    """What was measured on one machine at one config's sizes; on the disk after every row.

    Rows of earlier runs stay until they are measured again, so that a long run can be made in
    pieces.

    Args:
      path: the JSON file.
      config: the sizes.

    Raises:
      StageError: the file holds figures of another machine or of other sizes.
    """

    def __init__(self, path: Path, config: ConfigDict):
        self._path = path
        sizes = config.to_json(sort_keys=True)
        about = {
            'machine': machine(),
            'config': config.name,
            'sizes': hashlib.sha256(sizes.encode()).hexdigest()[:16],
        }
        self._content = about | {'products': {}, 'rows': [], 'sweeps': {}}
        if path.exists():
            before = json.loads(path.read_text())
            for name, value in about.items():
                if before[name] != value:
                    raise StageError(
                        f'{path} holds figures of {name} {before[name]}, these are of {value}; '
                        'choose another --out'
                    )
            self._content = {'products': {}} | before

    @property
    def rows(self) -> list[dict]:
        return self._content['rows']

    @property
    def sweeps(self) -> dict[str, list[dict]]:
        return self._content['sweeps']

    def add(self, row: dict) -> None:
        """Keeps a row, in place of one of the same work."""
        _put(self.rows, row, _KEYS)
        write_json(self._path, self._content)

    def add_products(self, dtype: str, rates: Mapping[str, float]) -> None:
        """Keeps the rates of the matrix products that the rows of `dtype` are set against."""
        self._content['products'][dtype] = dict(rates)
        write_json(self._path, self._content)

    def add_to_sweep(self, axis: str, row: dict) -> None:
        """Keeps a point of a sweep; `row['value']` is its place."""
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


def machine() -> str:
    """The processor or accelerator that the figures are of."""
    device = jax.devices()[0]
    if device.platform != 'cpu':
        return f'{jax.device_count()} x {device.device_kind}'
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        name = next(line.split(':')[1].strip() for line in lines if line.startswith('model name'))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f'{cores} cores of {name}'


def versions(*packages: str) -> dict[str, str]:
    return {name: metadata.version(name) for name in packages}


def products(dtype: str, rates: Mapping[str, float]) -> str:
    """The rates of matrix products as one line."""
    each = '; '.join(f'{name} {rate / 1e9:.0f} GFLOP/s' for name, rate in rates.items())
    return f'matrix products [{dtype}]: {each}'


def line(row: Mapping) -> str:
    """A row as one sentence."""
    parts = [
        f'{side} {_seconds(value)} (±{row["spread"][side]:.0%})'
        for side, value in row.get('seconds', {}).items()
    ]
    parts += [
        f'{value:.2f} times as fast as {side}'
        for side, value in row.get('times_faster', {}).items()
    ]
    if row.get('planned_bytes', {}).get('JAX'):
        parts.append(f'JAX plans {row["planned_bytes"]["JAX"] / _GIB:.2g} GiB beside its inputs')
    if 'share_of_peak' in row:
        parts.append(f'{row["share_of_peak"]:.0%} of the fastest product')
    if 'of_one_question' in row:
        parts.append(
            f'five questions in {row["of_one_question"]:.2f} times the time of one '
            f'({_seconds(row["one_question_seconds"])}; goal: at most {MOST_OF_ONE_QUESTION})'
        )
    if 'flops' not in row and 'samples_per_second' in row:
        parts.append(f'{row["samples_per_second"]["JAX"]:.3g} samples/s')
    if 'from_cache_seconds' in row:
        compiling = row['compile_seconds']['JAX']
        parts.append(f'{compiling:.1f} s, from the cache {row["from_cache_seconds"]:.1f} s')
    at = f' = {row["value"]}' if 'value' in row else ''  # of a sweep
    return f'{row["work"]}{at} [{row["dtype"]}, {row["allocator"]}]: ' + '; '.join(parts)


def tables(rows: Sequence[Mapping]) -> str:
    """A table of each kind of rows, so that speed at the same work is not mixed up with work
    saved."""
    found = []
    for kind, heading in _HEADINGS.items():
        if chosen := [row for row in rows if row.get('kind', '') == kind]:
            found.append(f'{heading}\n\n{table(chosen)}')
    return '\n\n'.join(found)


def table(rows: Sequence[Mapping]) -> str:
    """The rows as a Markdown table: seconds (half the quartiles' distance), how many times faster
    JAX is than each other side, and what else is known of JAX's side."""
    sides = list(dict.fromkeys(side for row in rows for side in row.get('seconds', ())))
    lines = []
    for row in rows:
        seconds, spread = row.get('seconds', {}), row.get('spread', {})
        shown = {'work': row['work'], 'dtype': row['dtype'], 'freed memory': row['allocator']}
        for side in sides:
            shown[f'{side} s'] = (
                f'{_number(seconds[side])} ±{spread[side]:.0%}' if side in seconds else ''
            )
        for side in sides[1:]:
            shown[f'x {side}'] = _number(row.get('times_faster', {}).get(side))
        peaks = row.get('peak_bytes', {})
        lines.append(
            shown
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
