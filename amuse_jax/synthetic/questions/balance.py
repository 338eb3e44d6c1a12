"""Selection of the questions, so that no template can be answered from the text alone.

Templates have the same shares as in MUSIC-AVQA. Within a template the answers are distributed as
evenly as the performances allow, as in MUSIC-AVQA v2.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable

import numpy as np

from amuse_jax.music_avqa.vocabulary import INSTRUMENTS, TEMPLATES
from amuse_jax.synthetic.questions.templates import Candidate

BINARY = frozenset(
    template for template in TEMPLATES if template.startswith(('Is ', 'Are '))
) | {'Where is the performance?'}  # fmt: skip
BINARY_SHARE = 0.55  # maximum share of one answer among the questions of a binary template
SHARE = 0.45  # the same for templates with more than two answers
TRIMMED_SHARE = 0.6  # questions are removed from a binary template until no answer exceeds it
PER_TEMPLATE = 2  # maximum number of questions of one template about one video
VIDEO_SLACK = 1.25  # maximum number of questions about one video, relative to the mean
# Templates are filled to their share first, and beyond it if there is room.
TARGET_FACTORS = (1.0, 1.4)
CHUNK = 64  # videos per chunk; counts continue across chunks, so this only limits memory and time

# Number of questions per template in the updated test file of v1, in the order of TEMPLATES.
WEIGHTS = dict(
    zip(
        TEMPLATES,
        (
            303, 364, 350, 307, 158, 129, 273, 358, 297, 269, 340, 286, 276, 323, 288, 433, 267,
            275, 281, 427, 282, 262, 81, 232, 345, 291, 244, 322, 244, 361, 185, 176, 100,
        ),
        strict=True,
    )
)  # fmt: skip


class Selector:
    """Selection of the questions of one split, in chunks of videos.

    Args:
      questions_per_video: average number of questions per video.
      rng: random generator that breaks ties.
    """

    def __init__(self, questions_per_video: int, rng: np.random.Generator):
        self._mean = questions_per_video
        self._rng = rng
        self._videos = 0
        # Numbers of selected questions, by template, (template, answer) and (template, cell).
        self._templates: Counter = Counter()
        self._answers: Counter = Counter()
        self._cells: Counter = Counter()

    def select(self, candidates: list[list[Candidate]]) -> list[list[Candidate]]:
        """Select the questions of a chunk of videos.

        Args:
          candidates: for each video, all questions that may be asked about it.

        Returns:
          For each video, the selected questions.
        """
        self._videos += len(candidates)
        cells: dict[str, dict[tuple, list]] = defaultdict(lambda: defaultdict(list))
        for video, questions in enumerate(candidates):
            for question in questions:
                cells[question.template][_cell(question)].append((video, question))
        for template in cells.values():
            for cell in template.values():
                self._rng.shuffle(cell)
        selected: list[list[Candidate]] = [[] for _ in candidates]
        for factor in TARGET_FACTORS:
            self._fill(cells, selected, factor)
        for questions in selected:
            self._rng.shuffle(questions)
        return selected

    def _fill(self, cells: dict, selected: list[list[Candidate]], factor: float) -> None:
        """Select questions until the templates reach `factor` times their share, or no more fit."""
        wanted = self._mean * self._videos
        total = sum(WEIGHTS.values())
        targets = {t: max(2.0, factor * wanted * WEIGHTS[t] / total) for t in cells}
        open_templates = set(cells)
        while open_templates and self._templates.total() < wanted:
            template = min(
                sorted(open_templates), key=lambda t: (self._templates[t] + 1) / targets[t]
            )
            if self._templates[template] + 1 > targets[template]:
                return
            if not self._select_one(template, cells[template], selected):
                open_templates.remove(template)

    def _select_one(self, template: str, cells: dict, selected: list[list[Candidate]]) -> bool:
        """Select one question of the template with the rarest answer; return False if none fits."""
        share = BINARY_SHARE if template in BINARY else SHARE
        limit = max(1, int(share * (self._templates[template] + 1) + 0.5))
        answers = {cell: self._answers[template, cell[-1]] for cell in cells}
        rarest_first = sorted(
            (cell for cell in cells if cells[cell] and answers[cell] < limit),
            key=lambda cell: (answers[cell] + 2 * self._cells[template, cell], cell),
        )
        for cell in rarest_first:
            cells[cell] = free = [
                (video, question)
                for video, question in cells[cell]
                if self._fits(selected[video], question)
            ]
            if free:
                video, question = min(
                    free,
                    key=lambda pair: (_count(selected[pair[0]], template), len(selected[pair[0]])),
                )
                selected[video].append(question)
                self._templates[template] += 1
                self._answers[template, question.answer] += 1
                self._cells[template, cell] += 1
                return True
        return False

    def _fits(self, selected: list[Candidate], question: Candidate) -> bool:
        """Return whether the question may be added to the selected questions of its video."""
        same_template = [other for other in selected if other.template == question.template]
        return (
            len(selected) < VIDEO_SLACK * self._mean
            and len(same_template) < PER_TEMPLATE
            and all(set(other.values) != set(question.values) for other in same_template)
        )


def _cell(question: Candidate) -> tuple:
    """Return the values other than instruments and the answer; these values could reveal it."""
    return (*(value for value in question.values if value not in INSTRUMENTS), question.answer)


def _count(selected: list[Candidate], template: str) -> int:
    return sum(question.template == template for question in selected)


def select(
    candidates: Iterable[list[Candidate]], questions_per_video: int, rng: np.random.Generator
) -> list[list[Candidate]]:
    """Select the questions of one split.

    Args:
      candidates: for each video, all questions that may be asked about it.
      questions_per_video: average number of questions per video; it is lower if the balance does
        not allow as many.
      rng: random generator that breaks ties; the same state gives the same selection.

    Returns:
      For each video, the selected questions. In a binary template no answer has more than
      TRIMMED_SHARE, unless a small split allows only one of the two answers; then the template has
      one question.
    """
    selector = Selector(questions_per_video, rng)
    selected: list[list[Candidate]] = []
    chunk: list[list[Candidate]] = []
    for questions in candidates:
        chunk.append(questions)
        if len(chunk) == CHUNK:
            selected += selector.select(chunk)
            chunk = []
    if chunk:
        selected += selector.select(chunk)
    _trim(selected)
    return selected


def _trim(selected: list[list[Candidate]]) -> None:
    """Remove questions until no answer of a binary template exceeds TRIMMED_SHARE."""
    for template in WEIGHTS:  # in a fixed order
        if template not in BINARY:
            continue
        while True:
            counts = Counter(
                q.answer for video in selected for q in video if q.template == template
            )
            if len(counts) < 2:
                break
            answer, most = counts.most_common(1)[0]
            if most <= TRIMMED_SHARE * counts.total():
                break
            video, question = max(
                (
                    (v, q)
                    for v in selected
                    for q in v
                    if (q.template, q.answer) == (template, answer)
                ),
                key=lambda pair: len(pair[0]),
            )
            video.remove(question)
