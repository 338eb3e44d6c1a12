"""The console script `amuse`, which starts every command of this package.

    amuse demo
    amuse train configs/v1.py --config.data.root=DIR
    amuse ask runs/demo clip.mp4 "Is there a voiceover?"

Every command can also be run as a module with `python -m`. `amuse COMMAND --help` lists its
options.
"""

import runpy
import sys
from pathlib import Path
from typing import NamedTuple


class Command(NamedTuple):
    """A command of the console script.

    Attributes:
      module: the module that is run.
      arguments: arguments that the module gets before the user's own arguments.
      help: a line that says what the command does.
    """

    module: str
    arguments: tuple[str, ...]
    help: str


DEMO = Path('configs', 'demo.py')
COMMANDS = {
    'demo': Command('amuse_jax.main', (), 'Run the demo in runs/demo: ten minutes on two cores.'),
    'train': Command(
        'amuse_jax.main', (), 'Run all stages of a config: amuse train CONFIG.py [--config.x=y].'
    ),
    'ask': Command(
        'amuse_jax.ask', (), 'Answer questions about a video: amuse ask MODEL VIDEO [QUESTION...].'
    ),
    'serve': Command(
        'amuse_jax.serve', (), 'Ask a model about videos in the browser: amuse serve MODEL.'
    ),
    'export': Command(
        'amuse_jax.ask.export_command', (), 'Write a trained model to a folder of its own.'
    ),
    'summary': Command(
        'amuse_jax.main',
        ('--stages=summary',),
        'Print parameters, FLOPs and shapes: amuse summary CONFIG.py.',
    ),
    'check': Command('amuse_jax.music_avqa', ('check',), 'Check a folder that holds MUSIC-AVQA.'),
    'convert': Command(
        'amuse_jax.pretrained', ('convert',), 'Convert a published checkpoint of a tower.'
    ),
    'tag': Command('amuse_jax.pretrained', ('tag',), 'Name the sounds in an audio or video file.'),
    'synthetic': Command('amuse_jax.synthetic', (), 'Render performances with questions.'),
    'seeds': Command(
        'amuse_jax.evaluation', ('seeds',), 'Average the tables of runs with other seeds.'
    ),
    'status': Command(
        'amuse_jax.main',
        ('--stages=status',),
        'List the stages of a run and what is set aside: amuse status CONFIG.py.',
    ),
    'benchmark': Command('amuse_jax.benchmark', (), 'Compare the speed with PyTorch.'),
}
_CONFIG_COMMANDS = ('demo', 'train', 'summary', 'status')


def main() -> None:
    """Run the command that the first argument names."""
    name, *arguments = sys.argv[1:] or ['--help']
    if name in ('--help', '-h', 'help'):
        print(_help())
        return
    if name not in COMMANDS:
        sys.exit(f'amuse: {name} is unknown; expected one of {", ".join(COMMANDS)}')
    command = COMMANDS[name]
    if name == 'demo':
        arguments = [str(_find_demo()), *arguments]
    if name in _CONFIG_COMMANDS and arguments and not arguments[0].startswith('-'):
        arguments[0] = f'--config={arguments[0]}'
    sys.argv = [f'amuse {name}', *command.arguments, *arguments]
    runpy.run_module(command.module, run_name='__main__')


def _find_demo() -> Path:
    """Return the demo's config: in this folder, or in the clone that the package is run from.

    Configs are examples to change, so they are not installed.
    """
    for folder in (Path(), Path(__file__).parents[1]):
        if (folder / DEMO).is_file():
            return folder / DEMO
    sys.exit(f'amuse: there is no {DEMO} here; run `amuse demo` in a clone of the repository')


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f'  {name:{width}}  {command.help}' for name, command in COMMANDS.items()]
    return '\n'.join(['usage: amuse COMMAND [ARGUMENTS]', '', *lines])
