import base64
import html.parser
import io
import re
import shutil

import pytest
from PIL import Image

from amuse_jax.evaluation import report_html, test_sets
from amuse_jax.evaluation import stage as evaluate
from amuse_jax.evaluation.page import canvas
from tests.evaluation.small_report import make_example, make_part, write

HOSTILE = '"><script>document.title = "taken"</script><img src=x onerror=alert(1)> & \' {{ 1 + 1 }}'
EMPTY = {'meta', 'img', 'link', 'br', 'input'}  # elements without an end tag
V1 = test_sets.KNOWN[0]


class Parsed(html.parser.HTMLParser):
    """The elements of a page as (tag, attributes, text); refuses what is not well nested."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        assert len({name for name, _ in attributes}) == len(attributes)
        element = {'tag': tag, 'text': '', 'inside': [e['tag'] for e in self.open]}
        element |= {'attributes': dict(attributes)}
        self.elements.append(element)
        if tag not in EMPTY:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open.pop()['tag'] == tag

    def handle_data(self, data):
        for element in self.open:
            element['text'] += data

    def all(self, tag, **attributes):
        return [
            e
            for e in self.elements
            if e['tag'] == tag and attributes.items() <= e['attributes'].items()
        ]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A report with four examples, the last with a hostile question."""
    folder = tmp_path_factory.mktemp('report')
    examples = [
        make_example(folder, '00-a.png', 'Is there a cello sound?', 'yes', 0),
        make_example(folder, '01-b.png', 'How many\uff1f', 'two', 0),
        make_example(folder, '02-c.png', 'Where is it?', 'yes', 3),
        make_example(folder, '03-d.png', HOSTILE, 'no', 8),
    ]
    write(folder, {'test': make_part([2] * 9, videos=3)}, examples)
    return folder


@pytest.fixture(scope='module')
def page(folder):
    return Parsed((folder / 'report.html').read_text('utf-8'))


def test_the_page_holds_everything_it_shows(page):
    sources = [e['attributes']['src'] for e in page.elements if 'src' in e['attributes']]
    assert len(sources) == 3 + 4 and all(s.startswith('data:image/webp;base64,') for s in sources)
    for source in sources:
        Image.open(io.BytesIO(base64.b64decode(source.partition(',')[2]))).verify()
    links = [e['attributes']['href'] for e in page.elements if 'href' in e['attributes']]
    ids = {e['attributes'].get('id') for e in page.elements}
    assert links and all(link[0] == '#' and link[1:] in ids for link in links)
    assert not page.all('link') and not page.all('iframe')
    (style,) = page.all('style')
    assert 'url(' not in style['text'] and '@import' not in style['text']
    (script,) = page.all('script')
    assert 'src' not in script['attributes']
    assert not re.search(r'fetch|import|XMLHttp|https?:', script['text'])
    (policy,) = page.all('meta', **{'http-equiv': 'Content-Security-Policy'})
    assert policy['attributes']['content'].startswith("default-src 'none'; img-src data:;")


def test_the_accuracy_table_has_intervals_and_baselines(tmp_path):
    scores = write(tmp_path, {'test': make_part(V1.counts)}, [])
    page = Parsed((tmp_path / 'report.html').read_text('utf-8'))
    names = [e['text'] for e in page.all('th', scope='row')]
    assert names[:4] == [*(evaluate.AMUSE, *evaluate.BASELINES), 'AVST (Li et al., 2022)']
    assert 'Amuse (Diao et al., 2024) [f]' in names
    cells = [e['text'] for e in page.all('td')]
    test = scores['parts']['test']
    low, high = test['intervals']['question words']['Avg']
    assert f'{test["rows"]["question words"]["Avg"]:.2f}±{(high - low) / 2:.1f}' in cells
    assert '83.58*' in cells and '9,129' in cells
    notes = [e['text'] for e in page.all('p')]
    assert any('[f] Types only: its accuracies per type may be compared' in n for n in notes)
    notes = [e['text'] for e in page.all('p')]
    assert any('95 % interval' in note for note in notes)
    assert not page.all('details') and not page.all('form')


def test_parts_of_the_test_have_a_table_of_their_own(tmp_path):
    parts = {'test': make_part([2] * 9), 'test, unseen': make_part([1] * 9)}
    write(tmp_path, parts, [])
    page = Parsed((tmp_path / 'report.html').read_text('utf-8'))
    names = [e['text'] for e in page.all('th', scope='row')]
    assert names.index('Amuse') < names.index('questions') < names.index('Amuse: test, unseen')


def test_annotators_detector_and_templates_are_tables(page):
    captions = [e['text'] for e in page.all('caption')]
    assert captions[-3:] == ['Annotators', 'Universal encoder', 'Detector']
    names = [e['text'] for e in page.all('th', scope='row')]
    assert {'tempo changes', 'acoustic guitar', 'val', 'Where is the <LL> one?'} <= set(names)
    (bar,) = page.all('td', **{'class': 'bar own'})
    assert bar['attributes']['style'] == '--share: 100.0' and bar['text'] == '100.0'


def test_examples_are_in_order_and_say_what_their_page_shows(page):
    shown = page.all('details')
    assert [e['attributes']['data-kind'] for e in shown] == [
        'Audio Counting', 'Audio Counting', 'Visual Location', 'Audio-Visual Temporal',
    ]  # fmt: skip
    assert [e['attributes']['data-result'] for e in shown] == [
        'correct',
        'wrong',
        'correct',
        'wrong',
    ]
    assert ['open' in e['attributes'] for e in shown] == [True, False, False, False]
    assert 'How many? two, not yes' in shown[1]['text']
    pictures = [e for e in page.all('img') if 'details' in e['inside']]
    for picture in pictures:
        alt = picture['attributes']['alt']
        assert '(60 %). True answer: yes.' in alt and 'source audio 75 %, visual 25 %' in alt
    assert all(len(e['attributes']['alt']) > 20 for e in page.all('img'))
    assert all(int(e['attributes']['width']) > 0 for e in page.all('img'))


def test_hostile_text_is_text(page):
    assert len(page.all('script')) == 1
    assert not any('onerror' in e['attributes'] for e in page.elements)
    (summary,) = [e for e in page.all('summary') if 'script' in e['text']]
    assert HOSTILE in summary['text']


def test_headings_labels_and_language_are_there(page):
    assert page.all('html')[0]['attributes']['lang'] == 'en'
    assert len(page.all('h1')) == 1
    for section in page.all('section'):
        assert page.all('h2', id=section['attributes']['aria-labelledby'])
    labelled = [e['attributes']['for'] for e in page.all('label')]
    assert labelled == [e['attributes']['id'] for e in page.all('select')] == ['kind', 'result']
    ids = [e['attributes']['id'] for e in page.elements if 'id' in e['attributes']]
    assert len(ids) == len(set(ids))


def test_colours_of_text_are_dark_enough():
    """WCAG AA asks for 4.5 on white."""

    def contrast(colour):
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 1.05 / (0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05)

    style = report_html.read_part('report.css')
    colours = re.findall(r'(?:--ink|--faint|[ {]color): (#[0-9a-f]{6})', style)
    assert len(colours) >= 5
    for colour in (*colours, canvas.INK, canvas.FAINT, canvas.RIGHT, canvas.WRONG):
        assert contrast(colour) >= 4.5, colour


def test_a_page_is_embedded_smaller_than_its_png(tmp_path):
    path = tmp_path / 'a.png'
    image = Image.effect_noise((200, 100), 50)
    image.save(path)
    picture = report_html.embed(path, is_lossless=False)
    assert (picture.width, picture.height) == (200, 100)
    assert len(picture.uri) < path.stat().st_size


@pytest.fixture(scope='module')
def browser():
    """A headless Chromium without a network."""
    sync_api = pytest.importorskip('playwright.sync_api', reason='Playwright is not installed')
    names = ('chromium', 'chromium-browser', 'google-chrome')
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip(f'none of the browsers {", ".join(names)} is installed')
    flags = ['--no-sandbox', '--disable-gpu', '--disable-background-networking']
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=flags)
        yield browser
        browser.close()


def test_the_examples_are_filtered_in_a_browser(browser, folder):
    tab = browser.new_page(viewport={'width': 1366, 'height': 900})
    problems, requests = [], []
    tab.on('console', lambda message: problems.append(message.text))
    tab.on('pageerror', lambda error: problems.append(str(error)))
    tab.on('request', lambda request: requests.append(request.url))
    address = (folder / 'report.html').as_uri()
    tab.goto(address)

    def shown():
        return [e.get_attribute('data-kind') for e in tab.locator('details:visible').all()]

    count = tab.locator('output')
    assert len(shown()) == 4 and count.inner_text() == '4 of 4 examples'
    tab.get_by_role('combobox', name='Question type').select_option('Audio Counting')
    assert shown() == ['Audio Counting'] * 2 and count.inner_text() == '2 of 4 examples'
    tab.get_by_role('combobox', name='Answer').select_option('wrong')
    assert count.inner_text() == '1 of 4 examples'
    assert tab.locator('details:visible').get_attribute('data-result') == 'wrong'
    assert tab.locator('details:visible img').is_visible()  # the first one that fits is open
    tab.get_by_role('combobox', name='Question type').select_option('')
    assert shown() == ['Audio Counting', 'Audio-Visual Temporal']
    tab.locator('summary:visible').last.click()  # opens it and closes the other
    assert tab.locator('details[open]').count() == 1
    picture = tab.locator('details[open] img')
    assert picture.evaluate('image => image.decode().then(() => image.naturalWidth)') == 64
    assert problems == [] and tab.title() == 'Music performance question answering: report'
    assert [url for url in requests if not url.startswith('data:')] == [address]


def test_without_scripts_all_examples_are_listed_and_no_page_is_too_wide(browser, folder):
    context = browser.new_context(java_script_enabled=False, viewport={'width': 400, 'height': 800})
    tab = context.new_page()
    tab.goto((folder / 'report.html').as_uri())
    assert tab.locator('details:visible').count() == 4
    assert not tab.locator('form').is_visible()
    context.close()
    tab = browser.new_page(viewport={'width': 400, 'height': 800})
    tab.goto((folder / 'report.html').as_uri())
    assert tab.evaluate('document.documentElement.scrollWidth') <= 400
