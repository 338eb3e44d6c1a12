"""Command that answers questions about videos on a page in the browser.

amuse serve runs/demo
python -m amuse_jax.serve runs/demo --port=8000

The page is open to this machine alone, and to nobody else unless --share is given.
"""

import signal
import sys
import threading
import warnings

from absl import app, flags, logging

from amuse_jax.errors import StageError
from amuse_jax.system import environment

_PORT = flags.DEFINE_integer(
    'port', None, 'Port of the page; 7860 or the next free one if it is not given.',
    lower_bound=1, upper_bound=65535,
)  # fmt: skip
_MAX_MEGABYTES = flags.DEFINE_integer(
    'max_megabytes', 200, 'Largest video that can be uploaded, in megabytes.', lower_bound=1
)
_SHARE = flags.DEFINE_boolean(
    'share', False, 'Let Gradio make a public address through its own servers.'
)


def main(argv: list[str]) -> None:
    """Serve the page of the model that the command line names until Ctrl-C or SIGTERM."""
    environment.set_up()
    logging.set_verbosity(logging.WARNING)
    if len(argv) != 2:
        raise app.UsageError('expected one model, such as runs/demo')
    import amuse_jax
    from amuse_jax.ask.video import UnfamiliarQuestion
    from amuse_jax.serve import server

    warnings.simplefilter('ignore', UnfamiliarQuestion)  # the notes of an answer say the same

    try:
        with amuse_jax.load(argv[1]) as model:
            model.start_detector()
            over = threading.Event()
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: over.set())
            settings = (_PORT.value, _MAX_MEGABYTES.value, _SHARE.value)
            with server.serve(model, argv[1], *settings) as (address, _):
                print(f'The page is at {address}  (Ctrl-C ends it)', flush=True)
                over.wait()
    except StageError as error:
        sys.exit(f'amuse_jax: {error}')


if __name__ == '__main__':
    app.run(main)
