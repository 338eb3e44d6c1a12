"""What can be answered without watching or listening: two baselines fitted on train questions."""

import dataclasses
from collections import Counter
from collections.abc import Sequence

from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from amuse_jax.music_avqa import Question


def most_frequent_answers(train: Sequence[Question], test: Sequence[Question]) -> list[str]:
    """The most frequent train answer of each test question's template.

    Ties go to the answer that sorts first; a template unknown to `train` gets the overall winner.
    """
    overall = Counter(question.answer for question in train)
    by_template: dict[str, Counter] = {}
    for question in train:
        by_template.setdefault(question.template, Counter())[question.answer] += 1
    return [_winner(by_template.get(question.template, overall)) for question in test]


def with_templates_of(test: Sequence[Question], rephrased: Sequence[Question]) -> list[Question]:
    """The rephrased questions, each with the template of the test question that it rephrases.

    That is the one with its videos and question_id, as in MUSIC-AVQA-R; where there is none it
    keeps its own. [] if not one is known.
    """
    templates = {_asked_as(question): question.template for question in test}
    if not any(_asked_as(question) in templates for question in rephrased):
        return []
    return [
        dataclasses.replace(q, template=templates.get(_asked_as(q), q.template)) for q in rephrased
    ]


def question_words(train: Sequence[Question], test: Sequence[Question]) -> list[str]:
    """Answers from the question's words alone: logistic regression on their 1- to 4-grams."""
    words = CountVectorizer(ngram_range=(1, 4), binary=True, token_pattern=r'\w+')
    model = make_pipeline(words, LogisticRegression(C=0.3, max_iter=1000))
    model.fit([question.text for question in train], [question.answer for question in train])
    return list(model.predict([question.text for question in test]))


def _asked_as(question: Question) -> tuple[str, str, str]:
    return question.video_id, question.sound_id, question.question_id


def _winner(answers: Counter) -> str:
    return min(answers, key=lambda answer: (-answers[answer], answer))
