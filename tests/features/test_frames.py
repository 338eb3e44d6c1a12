"""Pictures beside those that torchvision's transforms make of the decoded frames."""

import av
import numpy as np
import pytest
from PIL import Image
from torchvision import transforms

from amuse_jax.features import frames

TURNED = (0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)  # a quarter, as phones record upright videos


def decoded(path):
    with av.open(str(path)) as file:
        return [frame.to_image() for frame in file.decode(video=0)]


@pytest.mark.parametrize(('width', 'height'), [(320, 180), (96, 162), (200, 198)])
def test_pictures_are_resized_as_torchvision_does(media, tmp_path, width, height):
    picture = media.Picture(seconds=3, width=width, height=height, fps=5)
    path = media.write(tmp_path / 'a.mp4', picture)
    images = decoded(path)
    resize = transforms.Resize
    stretch = resize((224, 224))
    crop = transforms.Compose(
        [resize(224, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(224)]
    )
    for fit, transform in ((frames.STRETCH, stretch), (frames.CROP, crop)):
        found, mask = frames.read(path, frames.middles([0, 2, 9]), fit)
        assert mask.tolist() == [True, True, False] and not found[2].any()
        for row, index in ((0, 2), (1, 12)):  # the frames at 0.5 s and at 2.5 s
            expected = np.asarray(transform(images[index]))
            np.testing.assert_allclose(found[row].astype(int), expected, atol=2)


def test_a_video_of_a_phone_is_upright(media, tmp_path):
    picture = media.Picture(seconds=1, width=96, height=48, matrix=TURNED)
    path = media.write(tmp_path / 'a.mov', picture, None)
    (found,), _ = frames.read(path, [0.5], frames.CROP)
    lying = decoded(path)[5]
    ways = [lying.transpose(way) for way in (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270)]
    fit = transforms.Compose(
        [transforms.Resize(224, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(224)]
    )
    errors = [np.abs(np.asarray(fit(way), int) - found).mean() for way in ways]
    assert min(errors) < 1 < 10 < max(errors)


def test_the_last_second_counts_from_its_beginning_and_sound_holds_the_picture(media, tmp_path):
    path = media.write(tmp_path / 'a.mp4', media.Picture(seconds=2.2), None)
    _, mask = frames.read(path, frames.middles(range(5)), frames.STRETCH)
    assert mask.tolist() == [True, True, True, False, False]
    path = media.write(tmp_path / 'b.mp4', media.Picture(seconds=1), media.Sound(seconds=4))
    pictures, mask = frames.read(path, frames.middles(range(6)), frames.STRETCH)
    assert mask.tolist() == [True] * 4 + [False] * 2
    np.testing.assert_array_equal(pictures[1], pictures[3])
