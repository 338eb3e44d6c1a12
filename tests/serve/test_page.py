"""The page in a real browser: upload, ask, see the answer and its charts, jump, leave."""

import time
from pathlib import Path

from tests.serve.conftest import is_answer

QUESTION = 'Is there a voiceover?'


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def uploads(folder):
    """Return the videos that visitors have uploaded: all but the examples."""
    return [p for p in folder.rglob('*.mp4') if 'performance' not in p.name]


def shown_width(page, selector):
    return page.eval_on_selector(selector, 'image => image.complete && image.naturalWidth')


def test_a_visitor_asks_about_a_video(visit, films, site):
    visitor = visit()
    page = visitor.page
    visitor.upload(films[0])
    visitor.wait_until_ready()
    assert [line.split()[0] for line in page.locator('.steps li').all_inner_texts()] == [
        'reading', 'listening', 'looking', 'answering',
    ]  # fmt: skip
    assert page.locator('.steps li.done').count() == 3
    for question in ('Where is the performance?', 'How many <b>violins</b> {{x}} ${1}?', QUESTION):
        visitor.start_question(question)
        assert is_answer(visitor.wait_for_answer(question))
    start = time.monotonic()
    visitor.start_question('What kind of musical instrument is it?')
    visitor.wait_for_answer('What kind of musical instrument is it?')
    assert time.monotonic() - start < 10  # nothing is decoded again
    assert page.locator('#asked tr').count() == 4

    assert shown_width(page, 'img.probabilities') > 300 and shown_width(page, 'img.importance')
    assert shown_width(page, 'figure.evidence img') == 1280
    text = page.get_attribute('img.importance', 'alt')
    assert 'rhythm audio' in text and 'source visual' in text
    page.locator('button.segment').nth(0).click()
    page.wait_for_function("document.querySelector('.playhead').style.display == 'block'")
    page.locator('button.frame').nth(0).click()
    page.wait_for_function("document.querySelector('#video video').currentTime > 1")

    assert all(url.startswith((site[0], 'data:', 'blob:')) for url in visitor.requests)
    assert not visitor.faults and not visitor.dialogs
    for secret in (str(site[1]), str(Path.cwd()), str(films[0].parent), 'Traceback'):
        assert secret not in page.inner_text('body')
    assert len(uploads(site[1])) == 1
    visitor.leave()
    wait_for(lambda: not uploads(site[1]))


def test_a_broken_file_is_told_and_the_next_one_works(visit, films, site, tmp_path):
    visitor = visit()
    (tmp_path / 'noise.mp4').write_bytes(bytes(range(256)) * 40)
    visitor.upload(tmp_path / 'noise.mp4')
    told = visitor.wait_for_failure()
    assert told.startswith('This video cannot be used: ') and '/' not in told
    visitor.start_question(QUESTION)
    visitor.page.wait_for_timeout(500)
    assert visitor.wait_for_failure().startswith('This video cannot be used: ')
    visitor.upload(films[1])
    visitor.wait_until_ready()
    assert len(uploads(site[1])) == 1  # the broken one is deleted
    visitor.start_question('??')
    assert visitor.wait_for_failure().startswith("The question '??' has no word that the model")
    visitor.start_question(QUESTION)
    assert is_answer(visitor.wait_for_answer(QUESTION))


def test_an_example_and_a_form_are_answered(visit):
    visitor = visit()
    page = visitor.page
    assert page.locator('#examples video').count() == 6
    visitor.start_question(QUESTION)
    assert visitor.wait_for_failure().startswith('There is no video: ')
    page.locator('#examples .gallery-item').nth(2).click()
    visitor.wait_until_ready()
    page.click('#form input')
    page.get_by_role('option', name='Is the [instrument] on the [side] louder than').click()
    page.wait_for_selector('.blank input >> nth=3')
    filled = 'Is the accordion on the left louder than the acoustic guitar on the right?'
    page.wait_for_function(
        "text => document.querySelector('#question textarea').value == text", arg=filled
    )
    page.click('.blank input >> nth=0')
    page.get_by_role('option', name='pipa').click()
    wanted = filled.replace('accordion', 'pipa')
    page.wait_for_function(
        "text => document.querySelector('#question textarea').value == text", arg=wanted
    )
    page.press('#question textarea', 'Enter')
    assert is_answer(visitor.wait_for_answer(wanted))
