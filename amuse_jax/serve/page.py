"""The layout of the page, and which handler each of its parts calls."""

from collections.abc import Sequence
from pathlib import Path

import gradio as gr

from amuse_jax.serve import forms
from amuse_jax.serve.handlers import LONGEST_QUESTION, Handlers

# Videos are watched, and questions answered, by so many threads; other visitors wait in a line.
WATCHING, ANSWERING, WAITING = 2, 2, 64

HERE = Path(__file__).parent
_TITLE = """<h1>Amuse</h1>
<p>Ask about the music, the instruments and the players in a video.</p>"""
_START = """<ol class="start">
<li>Drop a video, record one with the camera, or pick a rendered performance.</li>
<li>Type a question, or choose a form of the data set and fill its blanks.</li>
<li>See the answer, how sure it is, which streams count, and what it looked at.</li>
</ol>"""


def build(handlers: Handlers, examples: Sequence[Path], limits: str) -> gr.Blocks:
    """Return the page.

    Args:
      handlers: what its events call.
      examples: videos to pick from.
      limits: a sentence about the limits of an upload.
    """
    with gr.Blocks(title='Amuse', analytics_enabled=False) as page:
        gr.HTML(_TITLE, elem_id='title')
        with gr.Row():
            with gr.Column(scale=2, min_width=340, elem_id='controls'):
                video = gr.Video(
                    label='Video', sources=['upload', 'webcam'], include_audio=True, buttons=[],
                    elem_id='video',
                )  # fmt: skip
                if examples:
                    _examples(video, examples)
                question = gr.Textbox(
                    label='Question', placeholder='How many violins are sounding in the video?',
                    max_length=LONGEST_QUESTION, elem_id='question', submit_btn='Ask',
                )  # fmt: skip
                _forms(question)
                gr.HTML(f'<p>{limits}</p>', elem_id='limits')
            with gr.Column(scale=4, min_width=340):
                status = gr.HTML(_START, elem_id='status')
                answer = gr.HTML(elem_id='answer')
                evidence = gr.HTML(elem_id='evidence')
                table = gr.HTML(elem_id='asked')
        asked = gr.State(())
        outputs = [status, answer, evidence, table, asked]
        private = {'api_visibility': 'private', 'show_progress_on': status}
        video.change(handlers.watch, video, outputs, concurrency_limit=WATCHING, **private)
        question.submit(
            handlers.ask, [question, asked], outputs, concurrency_limit=ANSWERING, **private
        )
        page.unload(handlers.leave)
    return page.queue(api_open=False, max_size=WAITING)


def _examples(video: gr.Video, examples: Sequence[Path]) -> None:
    picker = gr.Dataset(
        label='Rendered performances', components=[gr.Video(visible=False)], type='index',
        samples=[[str(path)] for path in examples], elem_id='examples',
    )  # fmt: skip
    picker.click(
        lambda index: str(examples[index]), picker, video,
        queue=False, show_progress='hidden', api_visibility='private',
    )  # fmt: skip


def _forms(question: gr.Textbox) -> None:
    """Add the forms of questions; a form and the values of its blanks write the question."""
    quick = {'queue': False, 'show_progress': 'hidden', 'api_visibility': 'private'}
    form = gr.Dropdown(
        forms.choices(), value=None, label='or a form of the data set', elem_id='form'
    )
    with gr.Row():
        blanks = [
            gr.Dropdown([], visible=False, min_width=150, interactive=True, elem_classes='blank')
            for _ in range(forms.MOST_BLANKS)
        ]

    def choose(chosen: str):
        values = forms.first_values(chosen)
        fields = [
            gr.Dropdown(choices, value=value, label=name, visible=True)
            for (name, choices), value in zip(forms.blanks(chosen), values)
        ]
        rest = range(len(fields), forms.MOST_BLANKS)
        hidden = [gr.Dropdown([], value=None, visible=False) for _ in rest]
        return [forms.fill(chosen, values), *fields, *hidden]

    form.input(choose, form, [question, *blanks], **quick)
    for blank in blanks:
        blank.input(
            lambda chosen, *values: forms.fill(chosen, [v for v in values if v is not None]),
            [form, *blanks], question, **quick,
        )  # fmt: skip
