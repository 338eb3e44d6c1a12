"""Command that summarises several finished runs.

python -m amuse_jax.evaluation seeds runs/v1-0 runs/v1-1 runs/v1-2 --out=runs/v1-seeds
python -m amuse_jax.evaluation ablations runs/v1-0 runs/v1-1 runs/v1-2 --out=runs/v1-parts

`seeds` prints the mean and the standard deviation of every method over runs that differ only in
their seeds, and writes table.{txt,md,csv} and accuracy.png to --out. A run is given by its workdir,
or by an evaluate folder in it, such as runs/v1-0/evaluate-without-rois.

`ablations` prints how many points each part of the model is worth, with 95 % intervals over the
test questions of one or more runs with --stages=ablations.
"""

import sys

from absl import app, flags

from amuse_jax.errors import StageError
from amuse_jax.system import environment, paths

FEWEST = {'seeds': 2, 'ablations': 1}  # the words, and how many runs each needs
OUT = flags.DEFINE_string('out', '', 'Folder to write the tables and the figure to.')


def main(argv: list[str]) -> None:
    """Run the command that the first word of the command line names."""
    environment.set_up()
    word, names = argv[1] if len(argv) > 1 else '', argv[2:]
    if len(names) < FEWEST.get(word, len(names) + 1) or not OUT.value:
        raise app.UsageError(
            'expected the word seeds and two or more runs, or the word ablations and one or more; '
            'and --out=FOLDER'
        )
    from amuse_jax.evaluation import ablations, seeds

    out, folders = paths.from_user(OUT.value, '--out'), [paths.from_user(n, 'a run') for n in names]
    try:
        if word == 'seeds':
            print(seeds.write(out, [seeds.read(folder) for folder in folders]))
        else:
            print(ablations.write_differences(out, folders))
    except StageError as error:
        sys.exit(f'amuse_jax: {error}')


if __name__ == '__main__':
    app.run(main)
