"""Command that answers questions about a video with a trained model.

python -m amuse_jax.ask runs/demo clip.mp4 "Is there a voiceover?" "How many instruments are there?"
python -m amuse_jax.ask runs/demo clip.mp4                        # reads questions, one a line
python -m amuse_jax.ask runs/demo clip.mp4 --json < questions.txt

Each question is answered at once. The exit status is 1 if the model or the video cannot be used, or
if a question has no answer.
"""

import gc
import io
import multiprocessing
import sys

from absl import app, flags, logging

from amuse_jax.errors import StageError
from amuse_jax.regions import process as region_process
from amuse_jax.system import devices, environment, memory, paths, xla

# Importing JAX takes a second, so modules that need it are imported inside the functions.

JSON = flags.DEFINE_bool('json', False, 'Print one JSON object a line for each question.')
PAGE = flags.DEFINE_string(
    'page', '', 'A folder: draw a page for each answer there, with frames, regions and timeline.'
)
INTERRUPTED = 130  # exit status after Ctrl-C, as of a shell


def main(argv: list[str]) -> None:
    """Answer the questions of the command line, or those on stdin if there are none."""
    if len(argv) < 3:
        raise app.UsageError('expected MODEL VIDEO [QUESTION...]')
    environment.set_up()
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors='replace')
    try:
        status = 0 if _ask(argv[1], argv[2], argv[3:]) else 1
    except StageError as error:
        print(f'amuse_jax: {error}', file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        status = INTERRUPTED
    for process in multiprocessing.active_children():
        process.kill()  # otherwise the exit would wait for the import of PyTorch, or for its end
    sys.exit(status)


def _ask(source: str, path: str, questions: list[str]) -> bool:
    """Answer the questions; return whether all of them have an answer.

    Raises:
      StageError: the model or the video cannot be used.
    """
    page_folder = paths.from_user(PAGE.value, '--page') if PAGE.value else None
    for question in questions:
        if not paths.is_utf_8(question):
            raise StageError(f'the question {question!a} is not UTF-8; use a UTF-8 terminal')
    # First of all, because importing PyTorch takes as long as everything until the first question.
    process = region_process.start_early()
    gc.disable()  # looking for garbage among a million new objects takes 0.6 s
    memory.keep_freed()
    logging.set_verbosity(logging.WARNING)
    xla.set_environment(shares_gpus=True)
    xla.run_cpu_programs_in_place()
    from amuse_jax.ask import model, terminal

    devices.start()
    video = model.load(source, process=process).watch(path)
    gc.freeze()
    gc.enable()
    given = questions or terminal.typed_questions()
    return terminal.answer_all(video, given, page_folder, as_json=JSON.value)


if __name__ == '__main__':
    app.run(main)
