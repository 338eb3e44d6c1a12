"""Compares the answers with a recount from the truth file, which samples who sounds when."""

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from amuse_jax.music_avqa.vocabulary import COUNTS, PLACEHOLDERS
from amuse_jax.synthetic.questions import templates
from amuse_jax.synthetic.score.compose import compose
from amuse_jax.synthetic.stage import truth

RATE = 20  # samples per second of the recount


class Recount:
    """Answers that are computed from the content of truth/ID.json."""

    def __init__(self, score):
        content = json.loads(json.dumps(truth(score, {})))
        self.all = content['performers']
        self.truth = content
        times = (np.arange(60 * RATE) + 0.5) / RATE
        for performer in self.all:
            performer['on'] = np.zeros(len(times), bool)
            for begin, end in performer['intervals']:
                performer['on'] |= (times >= begin) & (times < end)
            performer['first'] = performer['on'].argmax() if performer['on'].any() else None
        self.row = sorted((p for p in self.all if p['visible']), key=lambda p: p['position'])
        self.playing = [p for p in self.all if p['on'].any()]

    def named(self, name, key='heard_instrument', among=None):
        found = [p for p in (self.playing if among is None else among) if p[key] == name]
        assert len(found) == 1
        return found[0]

    def at(self, place):
        if place == 'middle':
            assert len(self.row) % 2 == 1
        return self.row[{'left': 0, 'middle': len(self.row) // 2, 'right': -1}[place]]

    def place(self, performer):
        index = [p is performer for p in self.row].index(True)
        if index in (0, len(self.row) - 1):
            return 'left' if index == 0 else 'right'
        assert index * 2 == len(self.row) - 1
        return 'middle'

    def side(self, performer, side):
        index = [p is performer for p in self.row].index(True)
        others = self.row[:index] if side == 'left' else self.row[index + 1 :]
        (name,) = {p['instrument'] for p in others}
        return name

    def ranked(self):
        return sorted(self.playing, key=lambda p: p['first'])

    def one(self, end, among=None):
        """Return who enters first or last; all others must be about a segment away."""
        order = sorted(self.playing if among is None else among, key=lambda p: p['first'])
        order = order if end == 'first' else order[::-1]
        assert abs(order[0]['first'] - order[1]['first']) >= 5.9 * RATE
        return order[0]

    def answer(self, template, v):  # noqa: C901 - one branch per group of templates
        heard = {p['heard_instrument'] for p in self.playing}
        seen = {p['instrument'] for p in self.row}
        text = template.replace('\uff1f', '?').strip()
        if ' sound?' in text:
            return yes(set(v) <= heard)
        if text.startswith(('Are there', 'Is there a <Object> in')):
            return yes(set(v) <= seen)
        if text.startswith('How many'):
            return COUNTS[self.count(text, v, seen, heard)]
        if text.startswith('Where is the performance'):
            return self.truth['setting']
        if 'voiceover' in text:
            return yes(self.truth['voiceover'])
        if 'from the instrument' in text:
            (picture,), (sound,) = seen, heard
            return yes(picture == sound)
        if 'always playing' in text:
            return yes(self.named(v[0], 'instrument', self.row)['on'].mean() > 0.98)
        if ' than ' in text:
            return yes(self.compare(text, v))
        return self.which(text, v, seen)

    def count(self, text, v, seen, heard):
        if 'types' in text:
            return len(seen if 'appeared' in text else heard)
        if 'did not sound' in text:
            return len([p for p in self.row if not p['on'].any()])
        if '<Object>' in text:
            among = self.playing if 'sounding' in text else self.row
            return len([p for p in among if p['instrument'] == v[0]])
        return len(self.playing)

    def compare(self, text, v):
        if '<LR>' not in text:
            one, other = self.named(v[0]), self.named(v[1])
        else:
            one, other = (self.at(place) for place in v if place in ('left', 'middle', 'right'))
            if len(v) == 4:
                assert (one['instrument'], other['instrument']) == (v[0], v[2])
        assert one is not other
        if 'louder' in text:
            gap = one['gain_db'] - other['gain_db']
            assert abs(gap) > 3.9
        elif 'rhythmic' in text:
            gap = np.log(one['notes_per_second'] / other['notes_per_second'])
            assert abs(gap) > np.log(1.49)
        else:
            gap = (one['on'].sum() - other['on'].sum()) / RATE
            assert abs(gap) > 5.8
        return gap > 0

    def which(self, text, v, seen):
        if text == 'What is the instrument on the <LR> of <Object>?':
            return self.side(self.named(v[1], 'instrument', self.row), v[0])
        if 'LRer' in text:
            return self.row[0 if v[0] == 'leftest' else -1]['instrument']
        if 'is it?' in text:
            (name,) = seen
            return name
        if 'coming from' in text:
            return yes(self.at(v[1]) is self.one(v[0]))
        if '<LR> instrument of' in text:
            return self.side(self.one(v[1]), v[0])
        if '<LL>' in text:
            levels = sorted(self.playing, key=lambda p: p['gain_db'])
            return self.place(levels[0 if v[0] == 'lowest' else -1])
        if 'same time' in text:
            on = self.named(v[0])['on']
            others = [p for p in self.playing if p['instrument'] != v[0] and (p['on'] & on).any()]
            (name,) = {p['instrument'] for p in others}
            return name
        if '<TH>' in text:
            rank = PLACEHOLDERS['<TH>'].index(v[0])
            return self.ranked()[rank]['instrument']
        if 'Where is the <FL>' in text:
            return self.place(self.one(v[0]))
        if 'Which <Object>' in text:
            group = [p for p in self.row if p['instrument'] == v[0]]
            assert len(group) > 1
            if len({p['first'] for p in group}) == 1:
                return 'simultaneously'
            return self.place(self.one(v[1], group))
        begin = self.named(v[1])['first']
        before = {p['instrument'] for p in self.playing if p['first'] < begin}
        after = {p['instrument'] for p in self.playing if p['first'] > begin}
        (name,) = before if v[0] == 'before' else after
        return name


def yes(true):
    return 'yes' if true else 'no'


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**20), st.integers(0, 5000))
def test_every_answer_agrees_with_the_truth_file(seed, index):
    score = compose(seed, index)
    recount = Recount(score)
    for question in templates.candidates(score):
        assert recount.answer(question.template, question.values) == question.answer, question
