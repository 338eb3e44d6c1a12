"""ResNet-18's maps beside a plain description of the network with stride 1 in its last stage."""

import numpy as np
import torch
import torch.nn.functional as F
from torchvision import transforms

from amuse_jax.features import resnet18

STRIDES = {1: 1, 2: 2, 3: 2, 4: 1}


def network(state, x):
    """(n, 3, 224, 224) -> (n, 512, 14, 14), from the names of the public file."""

    def norm(x, name):
        mean, variance, scale, shift = (
            state[f'{name}.{each}'][:, None, None]
            for each in ('running_mean', 'running_var', 'weight', 'bias')
        )
        return (x - mean) / (variance + 1e-5).sqrt() * scale + shift

    def convolve(x, name, stride, padding):
        return F.conv2d(x, state[f'{name}.weight'], stride=stride, padding=padding)

    x = F.relu(norm(convolve(x, 'conv1', 2, 3), 'bn1'))
    x = F.max_pool2d(x, 3, stride=2, padding=1)
    for stage, stride in STRIDES.items():
        for block in (0, 1):
            name, step = f'layer{stage}.{block}', stride if block == 0 else 1
            y = F.relu(norm(convolve(x, f'{name}.conv1', step, 1), f'{name}.bn1'))
            y = norm(convolve(y, f'{name}.conv2', 1, 1), f'{name}.bn2')
            if f'{name}.downsample.0.weight' in state:
                x = norm(convolve(x, f'{name}.downsample.0', step, 0), f'{name}.downsample.1')
            x = F.relu(x + y)
    return x


def test_maps_equal_the_plain_network_and_are_zero_without_a_picture(weights):
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (10, 224, 224, 3), np.uint8)
    mask = np.arange(10) < 3
    found = resnet18.Maps(weights.resnet18)(pictures, mask)['resnet18']
    assert found.shape == (10, 14, 14, 512) and not found[3:].any()
    normalise = transforms.Compose(
        [
            transforms.ToTensor(),
            transforms.Normalize((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)),
        ]
    )
    state = torch.load(weights.resnet18, weights_only=True)
    expected = network(state, torch.stack([normalise(picture) for picture in pictures[:3]]))
    assert expected.std() > 0.1
    np.testing.assert_allclose(found[:3], expected.movedim(1, -1).numpy(), atol=1e-4)


def test_pictures_are_of_every_sixth_second(weights):
    assert resnet18.Maps.moments == [0.5 + 6 * step for step in range(10)]
    nothing = resnet18.Maps(weights.resnet18)(
        np.zeros((10, 224, 224, 3), np.uint8), np.zeros(10, bool)
    )
    assert not nothing['resnet18'].any()
