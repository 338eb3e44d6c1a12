"""The row of `amuse ask`: watching a video, and a question about it."""

from flax import nnx
from ml_collections import ConfigDict

from amuse_jax.benchmark import comparison, epoch, inputs, whole
from amuse_jax.benchmark.comparison import Comparison
from amuse_jax.benchmark.reference import amuse as reference
from amuse_jax.benchmark.reference import universal_encoder, weights
from amuse_jax.training.pretrain import stage as pretrain

WATCHING = ('JAX watching', 'PyTorch watching')


def compare(config: ConfigDict, with_compile: bool, videos: int = 1) -> Comparison:
    """Compare a question about a video that has been watched, and watching it.

    To watch a video, each side runs the frozen encoders (two Swin-V2 and two HTS-AT) and the towers
    up to the first adapters, and keeps their arrays. A question needs the rounds and the answer
    alone. The first question about a video costs both.

    Decoding and finding regions is the same work on both sides, and is not included. torch.compile
    compiles the question, and its arrays come from the eager pass.

    Args:
      config: the sizes; the weights are random.
      with_compile: whether torch.compile is a side.
      videos: number of videos with a question each.
    """
    jax_model, torch_model = whole.build_pair(config)
    universal = universal_encoder.UniversalEncoder(config).eval()
    batch = inputs.random_batch(config, videos)
    abstract = nnx.eval_shape(lambda: pretrain.build(config, nnx.Rngs(0)))
    filled = weights.fill(abstract, universal, config)
    jax_watching, _, jax_kept = epoch.jax_storing_side(config, filled, jax_model, batch)
    encoders = reference.FrozenEncoders(universal, torch_model.encoder).requires_grad_(False)
    torch_watching, torch_kept = epoch.torch_storing_side(config, encoders, batch)
    work = 'a further question about ' + (
        'a watched video' if videos == 1 else f'each of {videos} watched videos'
    )
    kept = dict(zip(WATCHING, (jax_kept, torch_kept)))
    comparison.check_agreement(work, kept, comparison.TOLERANCES[config.model.dtype])
    asked = epoch.with_stored(batch, jax_kept)
    answers = whole.CompiledAnswers(jax_model, asked)

    def seconds(each):
        return {name: value for name, value in each.items() if name not in WATCHING}

    def extra(medians):
        watching = {name.split()[0]: medians[name] for name in WATCHING}
        sides = seconds(medians)
        first = {
            n: value + watching['JAX' if n == 'JAX' else 'PyTorch'] for n, value in sides.items()
        }
        return {'watching_seconds': watching, 'first_question_seconds': first}

    return Comparison(
        work=work,
        kind=comparison.RESULT,
        samples=videos,
        flops=answers.flops,
        sides={
            'JAX': answers.side([asked]),
            **dict(zip(WATCHING, (jax_watching, torch_watching))),
            **whole.torch_answering(
                config,
                torch_model,
                epoch.with_stored(batch, torch_kept),
                comparison.RESULT,
                with_compile,
            ),
        },
        seconds=seconds,
        extra=extra,
    )
