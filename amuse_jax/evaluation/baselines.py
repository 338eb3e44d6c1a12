"""Two baselines that neither watch nor listen: they are fitted on the train questions alone."""

import dataclasses
from collections import Counter
from collections.abc import Sequence

from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from amuse_jax.music_avqa import Question


def most_frequent_answers(train: Sequence[Question], test: Sequence[Question]) -> list[str]:
    """Answer each test question with the most frequent train answer of its template.

    If several answers are equally frequent, the first one in sorting order is taken. If `train` has
    no question of the template, the most frequent answer of all train questions is taken.
    """
    overall = Counter(question.answer for question in train)
    by_template: dict[str, Counter] = {}
    for question in train:
        by_template.setdefault(question.template, Counter())[question.answer] += 1
    return [_most_frequent(by_template.get(question.template, overall)) for question in test]


def with_original_templates(
    test: Sequence[Question], rephrased: Sequence[Question]
) -> list[Question]:
    """Give each rephrased question the template of the test question that it rephrases.

    As in MUSIC-AVQA-R, both have the same video, sound and question_id. A rephrased question
    without such a test question keeps its template.

    Returns:
      The rephrased questions; [] if none of them rephrases a test question.
    """
    templates = {_key(question): question.template for question in test}
    if not any(_key(question) in templates for question in rephrased):
        return []
    return [dataclasses.replace(q, template=templates.get(_key(q), q.template)) for q in rephrased]


def answer_from_words(train: Sequence[Question], test: Sequence[Question]) -> list[str]:
    """Answer each test question by logistic regression on the 1- to 4-grams of its words."""
    words = CountVectorizer(ngram_range=(1, 4), binary=True, token_pattern=r'\w+')
    model = make_pipeline(words, LogisticRegression(C=0.3, max_iter=1000))
    model.fit([question.text for question in train], [question.answer for question in train])
    return list(model.predict([question.text for question in test]))


def _key(question: Question) -> tuple[str, str, str]:
    return question.video_id, question.sound_id, question.question_id


def _most_frequent(answers: Counter) -> str:
    return min(answers, key=lambda answer: (-answers[answer], answer))
