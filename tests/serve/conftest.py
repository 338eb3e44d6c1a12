"""Fixtures: a small model with random weights, its page on a free port, and Chromium."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from amuse_jax.ask.familiar import Familiar, form_of
from amuse_jax.ask.model import Model
from amuse_jax.ask.trained import Trained
from amuse_jax.music_avqa import vocabulary
from amuse_jax.serve import forms, server
from amuse_jax.training import state
from amuse_jax.training.pretrain import stage as pretrain
from amuse_jax.training.train import answering
from tests.media import writing
from tests.training import conftest as small
from tests.training import processes

CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser')
MAX_MEGABYTES = 1


def fill(build):
    """Return a model with random values above 0. Drawing them with JAX compiles for long."""
    structure, *parts = state.split(nnx.eval_shape(build), '')
    random = np.random.default_rng(0)
    return structure.merge(
        {
            name: jnp.asarray(random.uniform(0.01, 0.1, array.shape), array.dtype)
            for part in parts
            for name, array in part.items()
        }
    )


@pytest.fixture(scope='package')
def model(tmp_path_factory):
    """A model without regions, so that nothing needs PyTorch."""
    config = small.tiny_config()
    config.without = 'rois'
    config.data.read_seconds = 20.0
    rois = tmp_path_factory.mktemp('rois')
    (rois / 'classes.json').write_text(json.dumps(small.CLASSES))
    jax.config.update('jax_disable_most_optimizations', True)
    trained = Trained(
        config=config,
        amuse=fill(lambda: answering.build(config, rois, nnx.Rngs(0))),
        encoder=fill(lambda: pretrain.build(config, nnx.Rngs(0))),
        class_names=small.CLASSES,
        detector=rois / 'detector.pt',
        familiar=_all_forms(),
        seen=rois / 'seen.npy',
        card=str,
    )
    yield Model(trained)
    jax.config.update('jax_disable_most_optimizations', False)


def _all_forms():
    questions = [forms.fill(form, forms.first_values(form)) for form in vocabulary.TEMPLATES]
    words = {part for word in vocabulary.QUESTION_WORDS for part in word.lower().split('_')}
    return Familiar(frozenset(words), frozenset(map(form_of, questions)))


@pytest.fixture(scope='package')
def films(tmp_path_factory):
    """Paths of videos of 13 seconds, which have three segments."""
    folder = tmp_path_factory.mktemp('films')
    return [
        writing.write_video(
            folder / f'film{index}.mp4',
            writing.Picture(seconds=13, fps=4, width=64 + 16 * index),
            writing.Sound(seconds=13),
        )
        for index in range(10)
    ]


@pytest.fixture(scope='package')
def workdir(tmp_path_factory, films):
    """A run's workdir with seven rendered performances in the test set."""
    folder = tmp_path_factory.mktemp('run')
    (folder / 'render/videos').mkdir(parents=True)
    names = [film.stem for film in films[:7]]
    for film in films[:7]:
        shutil.copy(film, folder / 'render/videos')
    rows = [{'video_id': name} for name in names for _ in range(2)]
    (folder / 'render/avqa-test.json').write_text(json.dumps(rows))
    return folder


@pytest.fixture(scope='package')
def site(model, workdir):
    """The address of a running page, and the folder of its uploads."""
    with server.serve(model, str(workdir), processes.free_port(), MAX_MEGABYTES, False) as found:
        yield found


@pytest.fixture(scope='package')
def browser():
    """Headless Chromium."""
    playwright = pytest.importorskip('playwright.sync_api', reason='playwright is not installed')
    if CHROMIUM is None:
        pytest.skip('Chromium is not installed (on Debian: apt-get install chromium)')
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox'])
        yield browser
        browser.close()


class Visitor:
    """A person with a browser of their own.

    Args:
      browser: Chromium.
      address: the page's address.
    """

    def __init__(self, browser, address):
        self._context = browser.new_context(viewport={'width': 1400, 'height': 900})
        self.page = self._context.new_page()
        self.requests, self.faults, self.dialogs = [], [], []
        self.page.on('request', lambda request: self.requests.append(request.url))
        self.page.on('pageerror', lambda error: self.faults.append(error))
        self.page.on('dialog', lambda dialog: (self.dialogs.append(dialog), dialog.dismiss()))
        self.page.goto(address)
        self.page.wait_for_selector('#video input[type=file]', state='attached')

    def upload(self, *files):
        if self.page.locator('#video video').count():
            self.clear()
        self.page.set_input_files('#video input[type=file]', *files)

    def clear(self):
        # Over a video that it cannot play, Chromium shows a picture that a click would hit.
        self.page.locator('#video button[aria-label=Clear]').last.dispatch_event('click')
        self.page.wait_for_selector('#video input[type=file]', state='attached')

    def wait_until_ready(self):
        self.page.wait_for_selector('#status .message:has-text("ready")')

    def wait_for_failure(self):
        self.page.wait_for_selector('#status .failure')
        return self.page.inner_text('#status .failure')

    def start_question(self, question):
        self.page.fill('#question textarea', question)
        self.page.press('#question textarea', 'Enter')

    def wait_for_answer(self, question):
        self.page.wait_for_function(
            "asked => document.querySelector('.answer .question')?.innerText == asked",
            arg=question,
        )
        return self.page.inner_text('.answer .text strong').replace(' ', '_')

    def leave(self):
        self._context.close()


@pytest.fixture
def visit(site, browser):
    """A function that opens the page as a new visitor."""
    visitors = []

    def open_page():
        visitors.append(Visitor(browser, site[0]))
        return visitors[-1]

    yield open_page
    for visitor in visitors:
        visitor.leave()


def is_answer(text):
    """Whether the text is one of the 42 answers."""
    return text in vocabulary.ANSWERS
