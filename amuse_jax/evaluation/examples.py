"""Examples of the report: test questions of every type, answered correctly and wrongly."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from amuse_jax.data.prepared import Prepared
from amuse_jax.data.records import segment_mask
from amuse_jax.evaluation import example_page
from amuse_jax.evaluation.other_data import TestData
from amuse_jax.evaluation.page.evidence import USUAL_SHAPE, Evidence
from amuse_jax.music_avqa import Question, vocabulary
from amuse_jax.regions import stage as rois


@dataclasses.dataclass(frozen=True)
class Answered:
    """A question with the model's answer, and where the answer looked.

    Attributes:
      question: the question.
      line: its line of predictions.jsonl.
      region_weights: (T, K), each region's share of the attention to regions; None of a peer.
      time_weights: (T,) for each stream, the attention inside the stream to each segment.
    """

    question: Question
    line: Mapping
    region_weights: np.ndarray | None
    time_weights: Mapping[str, np.ndarray]

    @property
    def kind(self) -> tuple[str, str]:
        """The question's type, one of vocabulary.TYPES."""
        return self.question.modality, self.question.kind

    @property
    def is_correct(self) -> bool:
        """Whether the model's answer is the true one."""
        return self.line['predicted'] == self.question.answer


def choose(answered: Sequence[Answered], count: int) -> list[Answered]:
    """Choose examples of every type and result, from as many videos as possible.

    The types and results take turns. Each takes the first of its questions whose video has the
    fewest examples so far.

    Args:
      answered: the questions with their answers.
      count: number of examples; fewer if there are fewer questions.

    Returns:
      The examples by type, in the order of vocabulary.TYPES, with the correct ones first.
    """
    groups = defaultdict(list)
    for each in answered:
        groups[each.kind, each.is_correct].append(each)
    turns = [(kind, result) for result in (True, False) for kind in reversed(vocabulary.TYPES)]
    chosen: list[Answered] = []
    uses: Counter[str] = Counter()
    while len(chosen) < count and any(groups.values()):
        for turn in turns:
            group = groups[turn]
            if group and len(chosen) < count:
                index = min(range(len(group)), key=lambda i: uses[group[i].question.video_id])
                chosen.append(group.pop(index))
                uses[chosen[-1].question.video_id] += 1
    return sorted(chosen, key=lambda e: (vocabulary.TYPES.index(e.kind), not e.is_correct))


def draw(
    config: ConfigDict, folder: Path, test_data: TestData, chosen: Sequence[Answered]
) -> list[Path]:
    """Draw a page for each example.

    Args:
      config: the config of the run.
      folder: the folder to write the pages to.
      test_data: the folders of the test questions.
      chosen: the examples.

    Returns:
      The path of each page, 'NUMBER-VIDEO.png'.
    """
    reader = Prepared(test_data.prepare).reader()
    boxes, classes = (
        np.load(test_data.rois / f'{name}.npy', mmap_mode='r') for name in ('boxes', 'classes')
    )
    sources, rhythm = (
        np.load(test_data.labels / f'{name}.npy', mmap_mode='r') for name in ('sources', 'rhythm')
    )
    class_names = rois.class_names(test_data.rois)
    paths = []
    for number, each in enumerate(chosen):
        line = each.line
        record = line['record']
        content = reader[record]
        evidence = Evidence(
            frames=content['frames'],
            shape=content.get('shape', USUAL_SHAPE),
            boxes=boxes[record],
            classes=classes[record],
            class_names=class_names,
            sources=sources[record],
            rhythm=rhythm[record],
            labels_from=test_data.labels_from,
            segment_seconds=config.data.segment_seconds,
            segment_mask=segment_mask(content),
            region_weights=each.region_weights,
            time_weights=each.time_weights,
        )
        paths.append(folder / f'{number:02d}-{each.question.video_id}.png')
        example_page.draw(
            evidence,
            each.question.text,
            np.array(line['probabilities']),
            line['importance'],
            each.question.answer,
            paths[-1],
        )
    return paths
