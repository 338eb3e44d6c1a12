"""Converts a public checkpoint once, so that training hosts need neither PyTorch nor a network.

python -m amuse_jax.pretrained convert --config=configs/v1.py --part=visual --source=F --out=DIR
"""

import sys
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file('config', None, 'Configuration with the sizes.')
PART = flags.DEFINE_enum('part', 'visual', ['visual', 'audio', 'text'], 'Which tower.')
SOURCE = flags.DEFINE_string('source', '', 'A name on the Hugging Face hub, or a file.')
OUT = flags.DEFINE_string('out', '', 'The folder to write; for config.checkpoints.<part>.')


def main(argv: list[str]) -> None:
    if argv[1:] != ['convert']:
        raise app.UsageError('expected the command convert')
    from amuse_jax.pretrained import files, towers
    from amuse_jax.stages import StageError

    try:
        if CONFIG.value is None or not SOURCE.value or not OUT.value:
            raise StageError('convert needs --config=FILE, --source=HUB_NAME_OR_FILE and --out=DIR')
        arrays = towers.from_source(CONFIG.value, PART.value, files.read(SOURCE.value))
        towers.write_converted(CONFIG.value, PART.value, arrays, Path(OUT.value).expanduser())
    except StageError as error:
        sys.exit(f'amuse_jax: {error}')
    count = sum(array.size for array in arrays.values())
    print(f'{OUT.value}: {len(arrays)} arrays, {count / 1e6:.1f} M parameters')


if __name__ == '__main__':
    app.run(main)
