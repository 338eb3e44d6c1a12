"""Answers on a terminal and as JSON, in this process and in one of their own."""

import dataclasses
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from amuse_jax.ask import exported, terminal
from amuse_jax.ask.model import Model
from tests.media import writing
from tests.paths import ROOT

media = writing.media  # the fixture
QUESTION, BLANK = 'Is there a voiceover?', '小提琴'


@pytest.fixture(scope='module')
def video(make_trained, draw_video, tmp_path_factory):
    """A short video as a model without towers sees it, with random regions."""
    model = Model(make_trained(without='encoder'))
    path = tmp_path_factory.mktemp('video') / 'my clip.mp4'
    writing.write_video(path, writing.Picture(), writing.Sound())
    return model.watch(path, regions=draw_video(model.trained.config)[1])


def lines(capsys):
    captured = capsys.readouterr()
    return captured.out.splitlines(), captured.err.splitlines()


def test_each_answer_is_printed_before_the_next_question_is_read(video, capsys):
    printed = []

    def questions():
        for _ in range(3):
            yield QUESTION
            printed.append(capsys.readouterr().out)

    assert terminal.answer_all(video, questions(), None, as_json=False)
    assert printed == [f'\n{video.ask(QUESTION)}\n'] * 3


def test_json_is_one_object_a_line_with_the_whole_answer(video, capsys):
    assert terminal.answer_all(video, [QUESTION, QUESTION], None, as_json=True)
    out, err = lines(capsys)
    assert [json.loads(line) for line in out] == [video.ask(QUESTION).to_json()] * 2
    assert not err


def test_a_question_without_an_answer_is_a_sentence_and_the_next_one_is_read(video, capsys):
    assert not terminal.answer_all(video, [BLANK, QUESTION], None, as_json=False)
    out, err = lines(capsys)
    assert QUESTION in out and BLANK not in ''.join(out)
    (sentence,) = err
    assert sentence.startswith(f'amuse_jax: the question {BLANK!r} has no word')
    assert not terminal.answer_all(video, [BLANK, QUESTION], None, as_json=True)
    out, err = lines(capsys)
    assert [json.loads(line)['question'] for line in out] == [BLANK, QUESTION] and not err
    assert 'has no word that the model knows' in json.loads(out[0])['error']


def test_a_page_is_drawn_only_if_a_folder_is_given(video, capsys, tmp_path):
    terminal.show(video, QUESTION, tmp_path / 'pages', as_json=True)
    page = json.loads(capsys.readouterr().out)['page']
    assert [str(path) for path in (tmp_path / 'pages').iterdir()] == [page]
    assert page.rpartition('/')[2].startswith('my-clip-') and page.endswith('.png')
    terminal.show(video, QUESTION, None)
    assert 'page:' not in capsys.readouterr().out


def test_the_answers_do_not_compile_anew(video, capsys):
    terminal.show(video, QUESTION, None)
    sizes = [video._model._answer._cache_size()]
    for question in ('Why?', ' '.join(['violin'] * 50), 'How many violins sing?'):
        terminal.show(video, question, None)
        sizes.append(video._model._answer._cache_size())
    assert len(set(sizes)) == 1
    answers = [video.ask([QUESTION] * count) for count in (2, 3, 4, 5, 9)]
    assert video._model._answer._cache_size() == sizes[0] + 1  # groups of four
    np.testing.assert_allclose(
        list(answers[-1][-1].probabilities.values()),
        list(answers[0][0].probabilities.values()),
        atol=1e-6,
    )


def test_typed_questions_are_lines_without_blank_ones(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'stdin', io.StringIO('\n one? \n  \n\ntwo?\nthree?'))
    assert list(terminal.typed_questions()) == ['one?', 'two?', 'three?']
    assert capsys.readouterr().out == ''  # no prompt where nobody types


def start(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, '-m', 'amuse_jax.ask', *map(str, arguments)],
        env=os.environ | {'PYTHONPATH': str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_a_model_or_video_that_is_missing_is_one_sentence(tmp_path):
    process = start(tmp_path / 'none', tmp_path / 'none.mp4', QUESTION)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1 and not out
    (sentence,) = err.splitlines()
    assert sentence.startswith(f'amuse_jax: there is no folder {tmp_path / "none"}; expected')


def test_too_few_arguments_are_explained():
    process = start('model')
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert 'expected MODEL VIDEO [QUESTION...]' in err and '--json' in out + err


@pytest.mark.slow
def test_a_program_gets_each_answer_at_once(make_trained, media, tmp_path):
    """A process answers a question before the next one is written to it."""
    trained = dataclasses.replace(make_trained(without='rois'), card=lambda: 'a card')
    exported.write(trained, tmp_path / 'model')
    path = media.write(tmp_path / 'clip.mp4', media.Picture(), media.Sound())
    process = start(tmp_path / 'model', path, '--json')
    for question in (QUESTION, BLANK, 'How many violins are there?'):
        process.stdin.write(f'{question}\n\n')
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
        assert answer['question'] == question
        assert ('error' in answer) == (question == BLANK)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1 and not out and not err  # one question has no answer
    process = start(tmp_path / 'model', tmp_path / 'none.mp4', QUESTION)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1 and not out
    (sentence,) = err.splitlines()
    assert sentence.startswith(f'amuse_jax: {tmp_path / "none.mp4"} cannot be used: ')
