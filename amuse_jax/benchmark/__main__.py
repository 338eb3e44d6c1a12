"""Speed of the towers beside PyTorch: the same weights and inputs, in turns, in one run.

python -m amuse_jax.benchmark --config=configs/v1.py
python -m amuse_jax.benchmark --config=configs/v1.py --parts=visual --work=forward --rounds=20

Both sides run in this process, with its threads and its allocator, which keeps freed memory
(--keep_memory=false: glibc's default). XLA's cache is off: compile times are those of a first run.
"""

import json
import os
import platform
import sys
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file('config', 'configs/v1.py', 'The sizes.')
PARTS = flags.DEFINE_list('parts', 'visual,audio,text', 'Which towers.')
WORK = flags.DEFINE_list('work', 'forward,gradient', 'Which work.')
DTYPE = flags.DEFINE_enum('dtype', 'float32', ['float32', 'bfloat16'], 'Of the compute.')
ROUNDS = flags.DEFINE_integer('rounds', 7, 'Measured repetitions of each side.', lower_bound=1)
COMPILE = flags.DEFINE_bool('compile', False, 'Also measure torch.compile.')
KEEP_MEMORY = flags.DEFINE_bool('keep_memory', True, 'Let glibc keep freed memory.')
JSON = flags.DEFINE_string('json', '', 'File to write the figures to.')


def main(argv: list[str]) -> None:
    if argv[1:]:
        raise app.UsageError(f'unexpected arguments: {" ".join(argv[1:])}')
    from amuse_jax import memory

    if KEEP_MEMORY.value:
        memory.keep_freed()
    import jax
    import tabulate

    jax.config.update('jax_enable_compilation_cache', False)
    from amuse_jax.benchmark import timing, towers
    from amuse_jax.stages import StageError

    peak = timing.product_peak(DTYPE.value)
    print(f'{machine()}; fastest product {peak / 1e9:.0f} GFLOP/s; {DTYPE.value}')
    rows = []
    try:
        for part in PARTS.value:
            for work in WORK.value:
                made = towers.compare(CONFIG.value, part, work, DTYPE.value, COMPILE.value)
                times = timing.in_turns(made.runs, ROUNDS.value)
                rows.append(row(made, times, peak))
                print('.', end='', flush=True)
    except StageError as error:
        sys.exit(f'amuse_jax: {error}')
    print('\n' + tabulate.tabulate(rows, headers='keys', tablefmt='github', floatfmt='.3g'))
    if JSON.value:
        found = {'machine': machine(), 'dtype': DTYPE.value, 'product_peak': peak, 'rows': rows}
        Path(JSON.value).write_text(json.dumps(found, indent=1) + '\n')


def row(made, times, peak: float) -> dict:
    """The figures of one comparison."""
    ours = times['JAX']
    found = {'work': f'{made.part} {made.work}', 'samples': made.samples}
    for side, measured in times.items():
        found[f'{side} s'] = measured.median
        found[f'{side} spread'] = f'{measured.spread:.0%}'
        if side != 'JAX':
            found[f'x {side}'] = measured.median / ours.median
    rate = made.flops / ours.median
    return found | {
        'samples/s': made.samples / ours.median,
        'GFLOP/s': rate / 1e9,
        'of peak': f'{rate / peak:.0%}',
        'compile s': made.compile_seconds,
    }


def machine() -> str:
    """The processor or accelerator that the figures are of."""
    import jax

    device = jax.devices()[0]
    if device.platform != 'cpu':
        return f'{jax.device_count()} x {device.device_kind}'
    cores = len(os.sched_getaffinity(0))
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        name = next(line.split(':')[1].strip() for line in lines if line.startswith('model name'))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f'{cores} cores of {name}'


if __name__ == '__main__':
    app.run(main)
