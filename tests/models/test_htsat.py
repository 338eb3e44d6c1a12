import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from transformers import ClapAudioConfig
from transformers.models.clap.modeling_clap import ClapAudioModel

from amuse_jax.models import htsat
from amuse_jax.models.htsat import HTSAT, HTSATConfig
from amuse_jax.pretrained import htsat as names
from amuse_jax.pretrained import key_mapping

# Maps of 32, 16, 8 and 4 tokens: shifted windows, then one window.
CONFIG = HTSATConfig(
    image_size=128, patch=4, width=8, depths=(3, 1, 2, 1), heads=(2, 2, 4, 8), window=4
)
FRAMES = 75  # stretched to 256
ATOL = 1e-5


@pytest.fixture(scope='module')
def original():
    torch.manual_seed(0)
    model = ClapAudioModel(
        ClapAudioConfig(
            spec_size=CONFIG.image_size,
            patch_size=CONFIG.patch,
            patch_stride=CONFIG.patch,
            patch_embeds_hidden_size=CONFIG.width,
            hidden_size=CONFIG.width * 8,
            depths=CONFIG.depths,
            num_attention_heads=CONFIG.heads,
            window_size=CONFIG.window,
            num_mel_bins=CONFIG.mels,
        )
    ).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if 'norm' in name and name.endswith('weight') else 0.0, 0.2)
        model.audio_encoder.batch_norm.running_mean.normal_(-30.0, 5.0)
        model.audio_encoder.batch_norm.running_var.uniform_(100.0, 300.0)
    return model


def converted(arrays):
    abstract = nnx.eval_shape(lambda: HTSAT(CONFIG, rngs=nnx.Rngs(0)))
    return key_mapping.fill(abstract, arrays, names.table(CONFIG, arrays))


@pytest.fixture(scope='module')
def tower(original):
    return converted({name: array.numpy() for name, array in original.state_dict().items()})


@pytest.fixture(scope='module')
def log_mel():
    return np.random.default_rng(0).normal(-30, 20, size=(3, FRAMES, 64)).astype(np.float32)


@pytest.fixture(scope='module')
def forward():
    return jax.jit(lambda tower, x: tower(x))


@pytest.fixture(scope='module')
def output(forward, tower, log_mel):
    return forward(tower, log_mel)


def close(ours, theirs):
    np.testing.assert_allclose(
        np.asarray(ours), theirs.detach().numpy(), atol=ATOL, rtol=1e-5, strict=True
    )


def test_the_folded_image_as_in_hugging_face(original, tower, log_mel):
    encoder = original.audio_encoder
    with torch.no_grad():
        theirs = encoder.batch_norm(torch.tensor(log_mel)[:, None].transpose(1, 3))
        theirs = encoder.reshape_mel2img(theirs.transpose(1, 3))[:, 0]
    close(jax.jit(htsat.fold, static_argnums=1)(tower.mel_norm(log_mel), CONFIG), theirs)


@pytest.mark.parametrize('source, target', [(601, 1024), (601, 256), (7, 40), (2, 5), (40, 40)])
def test_the_resize_is_pytorchs(source, target):
    x = torch.randn(1, 1, source, 3, generator=torch.Generator().manual_seed(0))
    theirs = torch.nn.functional.interpolate(x, (target, 3), mode='bicubic', align_corners=True)
    close(htsat.bicubic_matrix(source, target) @ x[0, 0].numpy(), theirs[0, 0])


def test_as_many_frames_as_the_image_holds_are_not_resized():
    x = np.random.default_rng(0).normal(size=(1, CONFIG.frames, 64)).astype(np.float32)
    image = htsat.fold(jnp.asarray(x), CONFIG)
    assert image[0, 64 + 5, 3] == x[0, 128 + 3, 5]  # second piece of time, band 5, frame 3


def test_each_stage_and_the_pooled_output_as_in_hugging_face(original, tower, output, log_mel):
    """The original runs in float64 on our folded image, which another test compares.

    So the tolerance covers only the rounding of our tower.
    """
    image = jax.jit(htsat.fold, static_argnums=1)(tower.mel_norm(log_mel), CONFIG)
    image = torch.tensor(np.asarray(image)).double()[:, None]
    exact = copy.deepcopy(original).double()
    exact.audio_encoder.patch_embed.register_forward_pre_hook(lambda *_: (image,))
    features = torch.tensor(log_mel)[:, None].double()
    with torch.no_grad():
        theirs = exact(input_features=features, output_hidden_states=True)
        stages = exact.audio_encoder(
            features, output_hidden_states=True, output_hidden_states_before_downsampling=True
        ).hidden_states
    for ours, stage in zip(output.stages, stages[1:], strict=True):
        close(ours, stage.flatten(2).transpose(1, 2).float())
    close(output.pooled, theirs.pooler_output.float())


@pytest.mark.parametrize('place', [0, 1])
def test_one_block_and_its_gradients_as_in_hugging_face(original, tower, place):
    """Place 0 is plain, place 1 is shifted."""
    rng = np.random.default_rng(1)
    tokens, weights = rng.normal(size=(2, 2, 1024, 8)).astype(np.float32)
    theirs_in = torch.tensor(tokens, requires_grad=True)
    original.zero_grad()
    theirs = original.audio_encoder.layers[0].blocks[place](theirs_in, (32, 32))[0]
    (theirs * torch.tensor(weights)).sum().backward()
    grads = {name: array.numpy() for name, array in original.state_dict().items()}
    for name, parameter in original.named_parameters():
        grads[name] = 0 * grads[name] if parameter.grad is None else parameter.grad.numpy()
    theirs_grads = nnx.split(converted(grads).stages[0].blocks)[1]

    stage = tower.stages[0]
    graphdef, state = nnx.split(stage)

    def loss(state, tokens):
        out = nnx.merge(graphdef, state).unrolled()[place](tokens)
        return jnp.sum(out * weights), out

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    (grads, tokens_grad), ours = gradient(state, tokens)
    close(ours, theirs)
    pairs = [(tokens_grad, theirs_in.grad.numpy())]
    pairs += [
        (ours[place], theirs[place])
        for ours, theirs in zip(*map(jax.tree.leaves, (grads['blocks'], theirs_grads)), strict=True)
    ]
    for ours, theirs in pairs:
        scale = max(1.0, float(np.abs(theirs).max()))
        np.testing.assert_allclose(ours / scale, theirs / scale, atol=ATOL)


def test_a_tower_run_in_parts_equals_the_whole_tower(tower, output):
    def run_in_parts(tower, tokens):
        tokens = tower.stages[2].enter(tokens)
        for run_block in tower.stages[2].unrolled():
            tokens = run_block(tokens)
        return tower.tail(tokens)

    tokens = jax.jit(run_in_parts)(tower, output.stages[1])
    assert tokens.shape == (3, 16, tower.width_out)
    np.testing.assert_allclose(tokens, output.tokens, atol=ATOL)


def test_bfloat16_stays_close(tower, log_mel, output):
    low = nnx.eval_shape(lambda: HTSAT(CONFIG, rngs=nnx.Rngs(0), dtype=jnp.bfloat16))
    low = nnx.merge(nnx.split(low)[0], nnx.state(tower))
    pooled = jax.jit(lambda tower, x: tower(x).pooled)(low, log_mel)
    assert pooled.dtype == jnp.bfloat16
    error = np.linalg.norm(pooled.astype(np.float32) - output.pooled)
    assert error < 3e-2 * np.linalg.norm(output.pooled)


def test_the_statistics_are_no_parameters():
    tower = nnx.eval_shape(lambda: HTSAT(CONFIG, rngs=nnx.Rngs(0)))
    statistics = nnx.state(tower, nnx.BatchStat)
    assert list(statistics) == ['mel_norm'] and set(statistics['mel_norm']) == {'mean', 'variance'}


def test_the_papers_tower_has_the_published_size():
    config = HTSATConfig(256, 4, 96, (2, 2, 6, 2), (4, 8, 16, 32), 8)
    tower = nnx.eval_shape(lambda: HTSAT(config, rngs=nnx.Rngs(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(tower))) == 27_534_616
    assert (config.folds, config.frames) == (4, 1024)
    assert (tower.stage3_width, tower.width_out) == (384, 768)


def test_wrong_bands_are_refused(tower):
    with pytest.raises(ValueError, match='40 bands.*64'):
        tower.embed(jnp.zeros((1, FRAMES, 40)))
    with pytest.raises(ValueError, match='100.*64 mel bands'):
        HTSAT(HTSATConfig(100, 4, 8, (1,), (1,), 4), rngs=nnx.Rngs(0))
