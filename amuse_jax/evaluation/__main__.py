"""Command that summarises several finished runs.

python -m amuse_jax.evaluation seeds runs/v1-0 runs/v1-1 runs/v1-2 --out=runs/v1-seeds

`seeds` prints the mean and the standard deviation of every method over runs that differ only in
their seeds, and writes table.{txt,md,csv} and accuracy.png to --out. A run is given by its workdir,
or by an evaluate folder in it, such as runs/v1-0/evaluate-without-rois.
"""

import sys

from absl import app, flags

from amuse_jax.errors import StageError
from amuse_jax.system import environment, paths

OUT = flags.DEFINE_string('out', '', 'Folder to write the tables and the figure to.')


def main(argv: list[str]) -> None:
    """Run the command that the first word of the command line names."""
    environment.set_up()
    if len(argv) < 4 or argv[1] != 'seeds' or not OUT.value:
        raise app.UsageError('expected the word seeds, two or more runs, and --out=FOLDER')
    from amuse_jax.evaluation import seeds

    try:
        runs = [seeds.read(paths.from_user(name, 'a run')) for name in argv[2:]]
        print(seeds.write(paths.from_user(OUT.value, '--out'), runs))
    except StageError as error:
        sys.exit(f'amuse_jax: {error}')


if __name__ == '__main__':
    app.run(main)
