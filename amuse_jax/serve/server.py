"""Starts the server of the page, and deletes everything that visitors have uploaded at its end."""

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from amuse_jax.ask.model import Model
from amuse_jax.errors import StageError
from amuse_jax.serve import examples
from amuse_jax.serve.sessions import Sessions

if TYPE_CHECKING:
    import gradio as gr

ADDRESS = '127.0.0.1'  # this machine alone
_SWEEP_SECONDS = 10.0
_MOST_UPLOADS = 10  # that no visitor has chosen yet, if each has the largest size


@contextlib.contextmanager
def serve(
    model: Model, source: str, port: int | None, max_megabytes: int, share: bool
) -> Iterator[tuple[str, Path]]:
    """Serve the page until the context ends.

    Args:
      model: answers the questions.
      source: where the model was loaded from; its rendered performances are the examples.
      port: the port; None for 7860, or the next one that is free.
      max_megabytes: the largest upload, in 1e6 bytes.
      share: whether Gradio also makes a public address that leads to the page.

    Yields:
      The page's address on this machine, and the folder of the uploads.

    Raises:
      StageError: the port is taken.
    """
    with contextlib.ExitStack() as stack:
        private = stack.enter_context(tempfile.TemporaryDirectory(prefix='amuse-serve-'))
        uploads = Path(private).resolve() / 'uploads'
        uploads.mkdir()
        stack.enter_context(_settings(uploads))
        from amuse_jax.serve import page  # after the settings of Gradio, which it imports
        from amuse_jax.serve.handlers import Handlers

        performances = examples.copy(source, uploads / 'examples')
        sessions = Sessions(model, uploads, _MOST_UPLOADS * max_megabytes * 10**6)
        blocks = page.build(Handlers(sessions), performances, _limits(model, max_megabytes))
        sessions.keep_files()
        address = _launch(blocks, port, max_megabytes, share)
        stack.callback(blocks.close, verbose=False)
        over = threading.Event()
        stack.callback(over.set)
        threading.Thread(target=_sweep, args=(sessions, over), daemon=True).start()
        if performances:
            threading.Thread(target=_warm_up, args=(model, performances[0]), daemon=True).start()
        yield address, uploads


def _launch(blocks: 'gr.Blocks', port: int | None, max_megabytes: int, share: bool) -> str:
    """Start the server in a thread of its own, and return the page's address."""
    from gradio import themes

    from amuse_jax.serve.page import HERE

    system = [themes.Font('system-ui'), themes.Font('sans-serif')]  # others would be downloaded
    theme = themes.Default(primary_hue='blue', font=system, font_mono=[themes.Font('monospace')])
    script = (HERE / 'page.js').read_text('utf-8')
    try:
        _, address, _ = blocks.launch(
            server_name=ADDRESS, server_port=port, share=share, inbrowser=False, quiet=True,
            prevent_thread_lock=True, show_error=False, max_file_size=max_megabytes * 10**6,
            footer_links=[], run_history=False, ssr_mode=False, pwa=False, mcp_server=False,
            enable_monitoring=False, strict_cors=True, state_session_capacity=200, theme=theme,
            css_paths=HERE / 'page.css', head=f'<script>{script}</script>',
        )  # fmt: skip
    except OSError as error:
        raise StageError(
            f'port {port or "7860 and the 99 after it"} of {ADDRESS} cannot be used: another '
            'program has it; give another one with --port'
        ) from error
    return address


@contextlib.contextmanager
def _settings(uploads: Path) -> Iterator[None]:
    """Replace Gradio's variables, which a notebook's host may set, by the page's own.

    Gradio asks its own server whether it has started, and a proxy must not answer.
    """
    before = {name: os.environ.pop(name) for name in _variables()}
    past_proxies = before.get('no_proxy') or os.environ.get('NO_PROXY')
    os.environ['no_proxy'] = ','.join(filter(None, (past_proxies, ADDRESS)))
    os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'
    os.environ['GRADIO_TEMP_DIR'] = str(uploads)
    try:
        yield
    finally:
        for name in _variables():
            del os.environ[name]
        os.environ.update(before)


def _variables() -> list[str]:
    return [name for name in os.environ if name.startswith('GRADIO_') or name == 'no_proxy']


def _sweep(sessions: Sessions, over: threading.Event) -> None:
    while not over.wait(_SWEEP_SECONDS):
        sessions.sweep()


def _warm_up(model: Model, video: Path) -> None:
    """Compile the programs before the first visitor needs them."""
    with contextlib.suppress(StageError):  # a visitor will be told
        model.watch(video).ask('Is there a voiceover?')


def _limits(model: Model, max_megabytes: int) -> str:
    data = model.trained.config.data
    return (
        f'Up to {max_megabytes} MB. The first {data.segments * data.segment_seconds:g} s count, '
        f'and reading may take {data.read_seconds:g} s. Your video stays on this server, and is '
        'deleted when you leave the page.'
    )
