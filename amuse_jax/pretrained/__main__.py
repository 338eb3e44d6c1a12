"""Command that converts a public checkpoint for training hosts, or tags a sound with one.

python -m amuse_jax.pretrained convert --config=configs/v1.py --part=visual --source=F --out=DIR
python -m amuse_jax.pretrained tag --source=HTSAT_AudioSet_Saved_1.ckpt --audio=F

`convert` writes a checkpoint that can be read without PyTorch and without a network. `tag` prints
the AudioSet classes that sound in an audio or video file, and when.
"""

import sys

from absl import app, flags
from ml_collections import config_flags

from amuse_jax.errors import StageError
from amuse_jax.system import devices, environment, paths

CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'convert: the config with the sizes of the towers.'
)
PART = flags.DEFINE_enum('part', 'visual', ['visual', 'audio', 'text'], 'convert: which tower.')
SOURCE = flags.DEFINE_string(
    'source', '', 'A checkpoint: a file, a folder, or a name on the Hugging Face hub.'
)
OUT = flags.DEFINE_string(
    'out', '', 'convert: the folder to write; name it in config.checkpoints.<part>.'
)
AUDIO = flags.DEFINE_string('audio', '', 'tag: the audio or video file.')
TOP = flags.DEFINE_integer(
    'top', 5, 'tag: how many classes to print.', lower_bound=1, upper_bound=527
)
LONGEST_SECONDS = 600.0


def main(argv: list[str]) -> None:
    """Run the command that the arguments name."""
    commands = {'convert': convert, 'tag': tag}
    environment.set_up()
    if len(argv) != 2 or argv[1] not in commands:
        raise app.UsageError('expected one command: convert or tag')

    try:
        devices.start()
        commands[argv[1]]()
    except StageError as error:
        sys.exit(f'amuse_jax: {error}')


def convert() -> None:
    """Convert a checkpoint to a folder that `towers.load` reads."""
    from amuse_jax.pretrained import towers

    if CONFIG.value is None or not SOURCE.value or not OUT.value:
        raise StageError('convert needs --config=FILE, --source=HUB_NAME_OR_FILE and --out=DIR')
    arrays = towers.from_source(CONFIG.value, PART.value, SOURCE.value)
    towers.write_converted(CONFIG.value, PART.value, arrays, paths.from_user(OUT.value, '--out'))
    count = sum(array.size for array in arrays.values())
    print(f'{OUT.value}: {len(arrays)} arrays, {count / 1e6:.1f} M parameters')


def tag() -> None:
    """Print the AudioSet classes with the highest scores in a file, and when they sound."""
    from amuse_jax.config import default_config
    from amuse_jax.media import audio, container, guarded
    from amuse_jax.pretrained import tagging

    if not SOURCE.value or not AUDIO.value:
        raise StageError('tag needs --source=HUB_NAME_OR_FILE and --audio=FILE')
    rate = tagging.FRONT_END.sample_rate
    try:
        with guarded.Reader(guarded.Limits.from_settings(default_config().data)) as reader:
            samples, seconds = reader.read(
                audio.read_audio, paths.from_user(AUDIO.value, '--audio'), rate, LONGEST_SECONDS
            )
    except container.MediaError as error:
        raise StageError(f'{AUDIO.value}: {error.reason}') from error
    samples = samples[: round(float(seconds) * rate)]
    if len(samples) < tagging.SHORTEST:
        raise StageError(f'{AUDIO.value} has {seconds:.3f} s of sound, which is too short')
    print(tagging.describe(tagging.load(SOURCE.value)(samples), TOP.value))
    if seconds > LONGEST_SECONDS:
        print(f'note: only the first {LONGEST_SECONDS:g} s of {seconds:.0f} s were tagged')


if __name__ == '__main__':
    app.run(main)
