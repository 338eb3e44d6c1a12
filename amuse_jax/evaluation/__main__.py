"""Finished runs side by side.

python -m amuse_jax.evaluation seeds runs/v1-0 runs/v1-1 runs/v1-2 --out=runs/v1-seeds

`seeds` prints every method's mean and deviation over runs that differ in their seeds alone, and
writes table.{txt,md,csv} and accuracy.png to --out. A run is a workdir with a finished evaluate
stage, or another evaluate folder in it, such as runs/v1-0/evaluate-without-rois.
"""

import sys
from pathlib import Path

from absl import app, flags

OUT = flags.DEFINE_string('out', '', 'Folder for the tables and the figure.')


def main(argv: list[str]) -> None:
    if len(argv) < 4 or argv[1] != 'seeds' or not OUT.value:
        raise app.UsageError('expected seeds, two runs or more, and --out=FOLDER')
    from amuse_jax.errors import StageError
    from amuse_jax.evaluation import seeds

    try:
        print(seeds.write(Path(OUT.value), [seeds.read(Path(name)) for name in argv[2:]]))
    except StageError as error:
        sys.exit(f'amuse_jax: {error}')


if __name__ == '__main__':
    app.run(main)
