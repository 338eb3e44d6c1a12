"""The reference's fused window attention, compared with Hugging Face's unchanged modules."""

import copy

import pytest
import torch
from torch.nn import functional

from amuse_jax.benchmark import comparison, inputs, rows
from amuse_jax.benchmark.reference import amuse, fused, towers, weights
from amuse_jax.benchmark.reference.universal_encoder import UniversalEncoder


def tower(config, part):
    """Return a tower with random weights and random inputs (b, ...) for it."""
    model = towers.build(config, part)
    side = config.model.visual.image_size
    shape = (3, side, side, 3) if part == 'visual' else (3, 101, config.audio.mels)
    return model, torch.randn(shape, generator=torch.Generator().manual_seed(1))


def outputs(part, model, inputs):
    """Return the output (b, d), its gradient with respect to the input, and those of parameters."""
    inputs = inputs.clone().requires_grad_()
    output = towers.output(part, model, (inputs,))
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(2))
    (output * weights).sum().backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return output.detach(), inputs.grad, gradients


def check_close(value, expected):
    assert value.shape == expected.shape
    assert (value - expected).abs().max() < 2e-5 * expected.abs().max()


@pytest.mark.parametrize('is_frozen', [False, True])
@pytest.mark.parametrize('part', ['visual', 'audio'])
def test_fused_attention_equals_hugging_faces(small, part, is_frozen):
    unchanged, inputs = tower(small, part)
    unchanged.requires_grad_(not is_frozen)
    replaced = fused.fuse_attention(copy.deepcopy(unchanged))
    fused.store_frozen(replaced, torch.float32)
    modules = [m for m in replaced.modules() if isinstance(m, fused.WindowAttention)]
    assert len(modules) == sum(small.model[part].depths)
    assert {m.mask is None for m in modules} == {True, False}  # some windows are shifted
    assert all((m.stored_bias is not None) == is_frozen for m in modules)
    assert replaced.state_dict().keys() == unchanged.state_dict().keys()
    found, expected = (outputs(part, model, inputs) for model in (replaced, unchanged))
    check_close(found[0], expected[0])
    check_close(found[1], expected[1])
    assert found[1].abs().max() > 0
    assert found[2].keys() == expected[2].keys() and bool(found[2]) != is_frozen
    total = torch.nn.utils.get_total_norm(expected[2].values())
    for name, value in expected[2].items():
        assert (found[2][name] - value).norm() < 1e-4 * max(value.norm(), 1e-3 * total), name


@pytest.mark.parametrize('part', ['visual', 'audio'])
def test_masks_and_position_biases_matter(small, part):
    """Otherwise equal outputs would prove nothing about them."""
    unchanged, inputs = tower(small, part)
    unchanged.requires_grad_(False)
    expected = towers.output(part, unchanged, (inputs,))
    for name in ('mask', 'bias'):
        replaced = fused.store_frozen(fused.fuse_attention(copy.deepcopy(unchanged)), torch.float32)
        for module in replaced.modules():
            if isinstance(module, fused.WindowAttention) and module.mask is not None:
                bias, mask = module.position_bias()[None], module.mask
                kept = (bias if name == 'mask' else 0 * bias + mask).expand(
                    *mask.shape[:1], *bias.shape[1:]
                )
                module.stored_bias = kept.flatten(0, 1)[None].contiguous()
        found = towers.output(part, replaced, (inputs,))
        assert (found - expected).abs().max() > 1e-4 * expected.abs().max(), name


def test_bfloat16_stores_frozen_weights_and_leaves_those_of_the_original(small):
    unchanged, inputs = tower(small, 'visual')
    unchanged.requires_grad_(False)
    shared = {id(x): x for x in unchanged.parameters()}
    replaced = fused.fuse_attention(copy.deepcopy(unchanged, shared))
    fused.store_frozen(replaced, torch.bfloat16)
    for model, dtype in ((unchanged, torch.float32), (replaced, torch.bfloat16)):
        linears = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
        assert linears and {m.weight.dtype for m in linears} == {dtype}
    with torch.autocast('cpu', torch.bfloat16):
        found = towers.output('visual', replaced, (inputs,))
        expected = towers.output('visual', unchanged, (inputs,))
    assert 0 < (found - expected).abs().max() < 5e-2 * expected.abs().max()


def test_fused_attention_is_one_call(small, monkeypatch):
    calls, fused_call = [], torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional, 'scaled_dot_product_attention',
        lambda *args, **options: calls.append(args[0].shape) or fused_call(*args, **options),
    )  # fmt: skip
    model, inputs = tower(small, 'visual')
    towers.output('visual', model, (inputs,))
    assert not calls
    towers.output('visual', fused.fuse_attention(model), (inputs,))
    assert len(calls) == sum(small.model.visual.depths)


def test_text_has_no_window_attention(small):
    assert not fused.has_window_attention(towers.build(small, 'text', 2000))
    assert fused.has_window_attention(tower(small, 'audio')[0])


@pytest.mark.parametrize(('dtype', 'tolerance'), [('float32', 1e-4), ('bfloat16', 5e-2)])
def test_the_step_on_stored_arrays_equals_the_unchanged_one(small, dtype, tolerance):
    """Its loss and gradients are those of Hugging Face's towers, one question after the other."""
    config, pytorch = rows.with_dtype(small, dtype), comparison.Torch(dtype)
    model = amuse.Amuse(config, inputs.random_phrases()).eval()
    encoders = amuse.FrozenEncoders(UniversalEncoder(config).eval(), model.encoder)
    encoders.requires_grad_(False)
    [frozen] = pytorch.variants(encoders, comparison.RESULT, with_compile=False).values()
    names = weights.table(model, config)
    trained = weights.set_trainable(model, names, config.train.trainable)
    [own] = pytorch.variants(model, comparison.RESULT, with_compile=False).values()
    batch = inputs.random_batch(config, videos=2, questions=3)
    sample = inputs.torch_batch(batch)
    with torch.no_grad(), pytorch.iteration():
        stored = frozen(sample.pop('frames'), sample.pop('log_mel'))
        unchanged = encoders.universal(*(torch.tensor(batch[n]) for n in ('frames', 'log_mel')))
    assert {name: x.shape[0] for name, x in stored.items()} == dict.fromkeys(stored, 2)
    with pytorch.iteration():
        loss = functional.cross_entropy(own({**sample, **stored}).logits, sample['answers'])
    loss.backward()

    losses = []
    for question in range(3):
        one = inputs.torch_batch(batch, question)
        with pytorch.iteration():
            logits = model({**one, **unchanged}).logits
        losses.append(functional.cross_entropy(logits, one['answers']) / 3)
        losses[-1].backward()
    assert loss.item() == pytest.approx(sum(losses).item(), rel=tolerance)
    found = [x.grad for x in own.parameters() if x.requires_grad and x.grad is not None]
    expected = [x.grad for x in trained if x.grad is not None]
    assert len(found) == len(expected) > 0
    total = torch.nn.utils.get_total_norm(expected)
    difference = [x - y for x, y in zip(found, expected)]
    assert torch.nn.utils.get_total_norm(difference) < 2 * tolerance * total
