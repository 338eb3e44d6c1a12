"""Chooses which questions are asked, so that no template can be answered without looking.

Templates keep the shares they have in MUSIC-AVQA; inside a template the answers come as evenly as
the performances allow, as in its second version.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable

import numpy as np

from amuse_jax.music_avqa.vocabulary import INSTRUMENTS, TEMPLATES
from amuse_jax.synthetic.questions.templates import Candidate

BINARY = frozenset(
    template for template in TEMPLATES if template.startswith(('Is ', 'Are '))
) | {'Where is the performance?'}  # fmt: skip
BINARY_SHARE = 0.55  # of its questions that an answer may take
SHARE = 0.45  # the same where there are more than two answers
TRIMMED_SHARE = 0.6  # binary templates of a split that end above it lose questions
PER_TEMPLATE = 2  # questions of one template about one video
VIDEO_SLACK = 1.25  # questions a video may get, times the mean
STRETCH = (1.0, 1.4)  # first to each template's share; where that leaves room, beyond it
CHUNK = 64  # videos that are looked at together; counts run on, so it only bounds memory and time

# Questions per template in v1's updated test file, in the order of TEMPLATES.
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


class Chooser:
    """Chooses questions for the videos of one split, chunk by chunk.

    Args:
      questions_per_video: how many each video gets on average.
      rng: breaks ties.
    """

    def __init__(self, questions_per_video: int, rng: np.random.Generator):
        self._mean = questions_per_video
        self._rng = rng
        self._videos = 0
        self._templates: Counter = Counter()  # template -> questions chosen
        self._answers: Counter = Counter()  # (template, answer) ->
        self._cells: Counter = Counter()  # (template, values but instruments, answer) ->

    def choose(self, candidates: list[list[Candidate]]) -> list[list[Candidate]]:
        """Returns the chosen questions of each video, given all that may be asked about it."""
        self._videos += len(candidates)
        cells: dict[str, dict[tuple, list]] = defaultdict(lambda: defaultdict(list))
        for video, questions in enumerate(candidates):
            for question in questions:
                cells[question.template][_cell(question)].append((video, question))
        for template in cells.values():
            for cell in template.values():
                self._rng.shuffle(cell)
        chosen: list[list[Candidate]] = [[] for _ in candidates]
        for stretch in STRETCH:
            self._fill(cells, chosen, stretch)
        for questions in chosen:
            self._rng.shuffle(questions)
        return chosen

    def _fill(self, cells: dict, chosen: list[list[Candidate]], stretch: float) -> None:
        wanted = self._mean * self._videos
        total = sum(WEIGHTS.values())
        targets = {t: max(2.0, stretch * wanted * WEIGHTS[t] / total) for t in cells}
        open_templates = set(cells)
        while open_templates and self._templates.total() < wanted:
            template = min(
                sorted(open_templates), key=lambda t: (self._templates[t] + 1) / targets[t]
            )
            if self._templates[template] + 1 > targets[template]:
                return
            if not self._take(template, cells[template], chosen):
                open_templates.remove(template)

    def _take(self, template: str, cells: dict, chosen: list[list[Candidate]]) -> bool:
        """Chooses one more question of the template, of the rarest answer; False: none is left."""
        share = BINARY_SHARE if template in BINARY else SHARE
        most = max(1, int(share * (self._templates[template] + 1) + 0.5))
        answers = {cell: self._answers[template, cell[-1]] for cell in cells}
        rarest_first = sorted(
            (cell for cell in cells if cells[cell] and answers[cell] < most),
            key=lambda cell: (answers[cell] + 2 * self._cells[template, cell], cell),
        )
        for cell in rarest_first:
            cells[cell] = free = [
                (video, question)
                for video, question in cells[cell]
                if self._may(chosen[video], question)
            ]
            if free:
                video, question = min(
                    free, key=lambda pair: (_asked(chosen[pair[0]], template), len(chosen[pair[0]]))
                )
                chosen[video].append(question)
                self._templates[template] += 1
                self._answers[template, question.answer] += 1
                self._cells[template, cell] += 1
                return True
        return False

    def _may(self, chosen: list[Candidate], question: Candidate) -> bool:
        """Whether a video with these questions may get this one too."""
        alike = [other for other in chosen if other.template == question.template]
        return (
            len(chosen) < VIDEO_SLACK * self._mean
            and len(alike) < PER_TEMPLATE
            and all(set(other.values) != set(question.values) for other in alike)
        )


def _cell(question: Candidate) -> tuple:
    """The answer, behind everything that could give it away: the values other than instruments."""
    return (*(value for value in question.values if value not in INSTRUMENTS), question.answer)


def _asked(chosen: list[Candidate], template: str) -> int:
    return sum(question.template == template for question in chosen)


def choose(
    candidates: Iterable[list[Candidate]], questions_per_video: int, rng: np.random.Generator
) -> list[list[Candidate]]:
    """Chooses the questions of one split.

    Args:
      candidates: per video everything that may be asked.
      questions_per_video: how many each gets on average; fewer where too little can be asked
        fairly.
      rng: breaks ties; same state, same choice.

    Returns:
      Per video the chosen questions. Of a binary template neither answer has more than
      TRIMMED_SHARE, unless the split is so small that only one of the two could be had: then there
      is one question.
    """
    chooser = Chooser(questions_per_video, rng)
    chosen: list[list[Candidate]] = []
    chunk: list[list[Candidate]] = []
    for questions in candidates:
        chunk.append(questions)
        if len(chunk) == CHUNK:
            chosen += chooser.choose(chunk)
            chunk = []
    if chunk:
        chosen += chooser.choose(chunk)
    _trim(chosen)
    return chosen


def _trim(chosen: list[list[Candidate]]) -> None:
    for template in WEIGHTS:  # in a fixed order
        if template not in BINARY:
            continue
        while True:
            counts = Counter(q.answer for video in chosen for q in video if q.template == template)
            if len(counts) < 2:
                break
            answer, most = counts.most_common(1)[0]
            if most <= TRIMMED_SHARE * counts.total():
                break
            video, question = max(
                ((v, q) for v in chosen for q in v if (q.template, q.answer) == (template, answer)),
                key=lambda pair: len(pair[0]),
            )
            video.remove(question)
