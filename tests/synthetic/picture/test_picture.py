"""Tests of the frames and boxes of performances."""

import dataclasses

import numpy as np
import pytest

from amuse_jax.music_avqa.vocabulary import INSTRUMENTS
from amuse_jax.synthetic.picture.picture import Picture
from amuse_jax.synthetic.score.score import Note, Performer, Score

WIDTH, HEIGHT = 320, 180
NOTES = tuple(Note(0.4 * i, 0.38, 60, 100) for i in range(10))


def make_performer(instrument='violin', x=0.5, playing=True, visible=True, appearance_seed=5):
    intervals, notes = (((0.0, 4.0),), NOTES) if playing else ((), ())
    return Performer(
        instrument, instrument, visible, x, 'middle', -20.0, intervals, notes, appearance_seed
    )


def make_score(*performers, setting='indoor', seed=1):
    return Score('syn00000001', seed, 4.0, setting, None, ((0.0, 150.0),), performers)


def paint(score, second=1.0, width=WIDTH, height=HEIGHT):
    """Return the luma plane and the boxes at a time."""
    picture = Picture(score, width, height)
    (poses,) = picture.poses(np.array([second]))
    shapes = ((height, width), (height // 2, width // 2), (height // 2, width // 2))
    planes = tuple(np.zeros(shape, np.uint8) for shape in shapes)
    picture.paint(poses, planes)
    return planes[0], picture.boxes(poses)


def changed_by(score, second=1.0):
    """Return the pixels that the visible performers change: (HEIGHT, WIDTH) bool."""
    hidden = tuple(dataclasses.replace(p, visible=False) for p in score.performers)
    empty, _ = paint(dataclasses.replace(score, performers=hidden), second)
    full, _ = paint(score, second)
    return np.abs(full.astype(int) - empty) > 8


def overlap(box, other):
    """Return the intersection over union."""
    low, high = np.maximum(box[:2], other[:2]), np.minimum(box[2:], other[2:])
    common = np.prod(np.maximum(high - low, 0))
    areas = [np.prod(np.subtract(b[2:], b[:2])) for b in (box, other)]
    return common / (sum(areas) - common)


@pytest.mark.parametrize('playing', [True, False])
@pytest.mark.parametrize('instrument', INSTRUMENTS)
def test_boxes_enclose_the_drawn_figure(instrument, playing):
    score = make_score(make_performer(instrument, playing=playing))
    changed = changed_by(score)
    _, boxes = paint(score)
    assert [box[4:] for box in boxes] == [(instrument, 0), ('player', 0)]
    covered = np.zeros_like(changed)
    for x0, y0, x1, y1, name, _ in boxes:
        rows = slice(int(y0 * HEIGHT), int(np.ceil(y1 * HEIGHT)))
        columns = slice(int(x0 * WIDTH), int(np.ceil(x1 * WIDTH)))
        covered[rows, columns] = True
        inside = changed[rows, columns]
        assert inside.mean() > 0.3, name
        for edge in (inside[:3], inside[-3:], inside[:, :3], inside[:, -3:]):
            assert edge.any(), f'the box of {name} is too large'
    assert (changed & covered).sum() > 0.9 * changed.sum()  # bows, sticks and chairs reach outside


@pytest.mark.parametrize('instrument', INSTRUMENTS)
def test_playing_and_resting_differ_in_a_single_frame(instrument):
    playing, boxes = paint(make_score(make_performer(instrument)))
    resting, rest_boxes = paint(make_score(make_performer(instrument, playing=False)))
    x0, y0, x1, y1 = (
        f(v) for f, v in zip((min, min, max, max), np.array([b[:4] for b in boxes + rest_boxes]).T)
    )
    figure = np.s_[int(y0 * HEIGHT) : int(y1 * HEIGHT) + 1, int(x0 * WIDTH) : int(x1 * WIDTH) + 1]
    difference = np.abs(playing[figure].astype(int) - resting[figure]) > 20
    assert difference.mean() > 0.08
    if instrument not in ('congas', 'drum', 'guzheng', 'xylophone'):  # these stand by themselves
        assert overlap(np.array(boxes[0][:4]), np.array(rest_boxes[0][:4])) < 0.8


@pytest.mark.parametrize('instrument', INSTRUMENTS)
def test_sounding_players_move_and_silent_ones_do_not(instrument):
    frames = np.arange(30) / 10
    moving = Picture(make_score(make_performer(instrument)), WIDTH, HEIGHT).poses(frames)
    assert sum(a != b for a, b in zip(moving, moving[1:])) > 20
    still = make_score(make_performer(instrument, playing=False))
    assert len(set(Picture(still, WIDTH, HEIGHT).poses(frames))) == 1


def test_louder_players_move_more():
    reach = []
    for gain in (-34.0, -17.0):
        performer = dataclasses.replace(make_performer('drum'), gain_db=gain)
        poses = Picture(make_score(performer), WIDTH, HEIGHT).poses(np.arange(30) / 10)
        reach.append(np.ptp([pose.stroke for (pose,) in poses]))
    assert reach[0] < reach[1]


def test_six_performers_fit_on_the_stage():
    names = ('piano', 'violin', 'drum', 'guzheng', 'tuba', 'banjo')
    performers = [make_performer(n, (i + 0.5) / 6, appearance_seed=i) for i, n in enumerate(names)]
    score = make_score(*performers, make_performer('flute', visible=False), setting='outdoor')
    _, boxes = paint(score)
    assert len(boxes) == 12 and 'flute' not in [box[4] for box in boxes]
    for box in boxes:
        assert all(0 <= v <= 1 for v in box[:4]) and box[0] < box[2] and box[1] < box[3]
    players = sorted((box for box in boxes if box[4] == 'player'), key=lambda box: box[5])
    for left, right in zip(players, players[1:]):
        assert overlap(np.array(left[:4]), np.array(right[:4])) < 0.25


def test_settings_and_seeds_give_different_scenes():
    scenes = [
        paint(make_score(setting=s, seed=n))[0] for s in ('indoor', 'outdoor') for n in (1, 2)
    ]
    for i, scene in enumerate(scenes):
        for other in scenes[i + 1 :]:
            assert np.abs(scene.astype(int) - other).mean() > 2


@pytest.mark.parametrize('size', [(160, 90), (64, 64), (640, 360)])
def test_other_sizes_are_painted(size):
    score = make_score(make_performer('cello', 0.3), make_performer('trumpet', 0.7))
    small, boxes = paint(score, width=size[0], height=size[1])
    assert small.shape == size[::-1]
    assert len(boxes) == 4


def test_odd_sizes_are_refused():
    with pytest.raises(ValueError, match='321x180'):
        Picture(make_score(), 321, 180)
