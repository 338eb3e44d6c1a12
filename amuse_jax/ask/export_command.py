"""Command that writes a trained model to one folder, which can be read on any machine.

amuse export runs/demo --out=DIR
amuse export runs/demo --out=DIR --stablehlo

The model is the workdir of a finished run, an exported folder or a name on the Hugging Face hub.
"""

import sys

from absl import app, flags, logging

from amuse_jax.errors import StageError
from amuse_jax.system import devices, environment, paths

OUT = flags.DEFINE_string('out', '', 'The folder to write; it must not exist, or be empty.')
STABLEHLO = flags.DEFINE_bool(
    'stablehlo', False, 'Also write programs for CPU, CUDA and TPU that run without amuse_jax.'
)


def main(argv: list[str]) -> None:
    """Export the model that the argument names."""
    environment.set_up()
    logging.set_verbosity(logging.WARNING)  # Orbax tells every step of reading a checkpoint
    if len(argv) != 2 or not OUT.value:
        raise app.UsageError('expected a model and a folder: export runs/demo --out=DIR')
    try:
        devices.start()
        export(argv[1])
    except StageError as error:
        sys.exit(f'amuse_jax: {error}')


def export(source: str) -> None:
    """Export a model to the folder that the flags name, and print what the folder holds."""
    from amuse_jax.ask import exported, loading

    folder = paths.from_user(OUT.value, '--out')
    exported.refuse_used(folder)  # before the model is read
    exported.write(loading.read(source), folder, stablehlo=STABLEHLO.value)
    for path in sorted(folder.iterdir()):
        print(f'{path.stat().st_size / 1e6:10.2f} MB  {path}')


if __name__ == '__main__':
    app.run(main)
