import numpy as np
import pytest

from amuse_jax.evaluation.page import evidence
from tests.evaluation.page.evidence import STREAMS, make_evidence


def test_attention_over_time_sums_to_one_and_is_weighted_by_importance():
    importance = dict(zip(STREAMS, (0.5, 0.3, 0.2)))
    first = np.eye(1, 10)[0]
    time_weights = dict.fromkeys(STREAMS, np.full(10, 0.1)) | {'visual': first}
    attention = evidence.attention_over_time(make_evidence(time_weights=time_weights), importance)
    assert attention.keys() == importance.keys()
    assert sum(part.sum() for part in attention.values()) == pytest.approx(1)
    np.testing.assert_allclose(attention['visual'], 0.5 * first)
    assert evidence.attention_over_time(make_evidence(time_weights=None), importance) == {}


@pytest.mark.parametrize('length', [0, 1, 7, 10])
def test_segments_end_with_the_video(length):
    mask = np.arange(10) < length
    assert make_evidence(segment_mask=mask).segments == max(1, length)
    assert make_evidence().segments == 10


def test_a_gap_in_a_video_does_not_end_it():
    assert make_evidence(4, segment_mask=np.array([True, False, True, False])).segments == 3
