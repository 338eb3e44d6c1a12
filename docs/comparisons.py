"""Measure what comparisons of loudness, rhythm and length need: labels or more videos.

    python docs/comparisons.py --videos=600 --out=DIR

Renders the sound of performances (2 s each on one core), describes every mixture by statistics of
its log-mel, and fits linear models on the first N of them:

- `answers` learns from the answers alone: ridge regression of yes and no on the statistics, with
  weights of its own for each instrument, positive for the first named one and negative for the
  second.
- `labels` learns a number for each instrument that sounds, its level in dB, the logarithm of its
  notes per second or its seconds, by ridge regression, and compares two predictions.
- `labels, level removed` is the same after each video's mean level was subtracted.

Penalties are chosen by leave-one-out validation on the N videos. The others are the test. The
curves are means over several random choices of the N videos. docs/comparisons.png shows them, and
docs/demo.md says what follows. The statistics stay in DIR, so a second call is fast.
"""

import argparse
import concurrent.futures
import functools
import math
import multiprocessing
from pathlib import Path

import numpy as np

SHARES = (1 / 12, 1 / 6, 1 / 3, 2 / 3)  # of the videos that a model learns from
REPEATS = 6  # random choices of these videos
PENALTIES = np.geomspace(1e1, 1e5, 5)
RISE_DB = 6.0  # from one frame of 10 ms to the next: a note begins
TEMPLATES = {
    'louder': 'Is the <Object> louder than the <Object>?',
    'more rhythmic': 'Is the <Object> more rhythmic than the <Object>?',
    'longer': 'Is the <Object> playing longer than the <Object>?',
}
METHODS = ('answers', 'labels', 'labels, level removed')


def describe(index: int) -> np.ndarray:
    """Return the statistics of performance `index` of seed 0, five for each of 64 mel bands.

    They are, in dB: mean, 90th percentile and maximum over time, the mean rise, and the share of
    rises above RISE_DB.
    """
    from amuse_jax.config import default_config
    from amuse_jax.media.log_mel import LogMel
    from amuse_jax.synthetic.score.compose import compose
    from amuse_jax.synthetic.sound import sound

    front_end = LogMel.from_settings(default_config())
    count = front_end.segments * front_end.segment_samples
    mixture = sound.play(compose(0, index)).sum(0)[:count].astype(np.float32)
    mel = np.asarray(front_end(np.pad(mixture, (0, count - len(mixture)))))
    mel = mel.reshape(-1, mel.shape[-1])
    rises = np.maximum(np.diff(mel, axis=0), 0)
    return np.concatenate([
        mel.mean(0), np.quantile(mel, 0.9, axis=0), mel.max(0), rises.mean(0),
        (rises > RISE_DB).mean(0),
    ]).astype(np.float32)  # fmt: skip


def describe_all(videos: int, folder: Path) -> np.ndarray:
    """Return the statistics [videos, n] of all performances, and keep them in the folder."""
    from tqdm import tqdm

    path = folder / 'statistics.npy'
    known = np.load(path, allow_pickle=False) if path.exists() else np.zeros((0, 5 * 64))
    missing = range(len(known), videos)
    if missing:
        context = multiprocessing.get_context('spawn')
        with concurrent.futures.ProcessPoolExecutor(mp_context=context) as pool:
            new = list(tqdm(pool.map(describe, missing), total=len(missing), desc='sound'))
        known = np.concatenate([known, new])
        np.save(path, known)
    return known[:videos].astype(np.float32)


def read_scores(videos: int) -> tuple[dict, dict]:
    """Return the questions and the labels of all performances.

    Returns:
      For each template: (video, first instrument, second instrument, answer is yes); and
      (video, instrument) -> label.
    """
    from amuse_jax.synthetic.questions import facts
    from amuse_jax.synthetic.questions.templates import candidates
    from amuse_jax.synthetic.score.compose import compose

    questions, labels = ({name: [] for name in TEMPLATES}, {name: {} for name in TEMPLATES})
    for video in range(videos):
        score = compose(0, video)
        for each in candidates(score):
            for name, template in TEMPLATES.items():
                if each.template == template:
                    questions[name].append((video, *each.values, each.answer == 'yes'))
        for one in facts.only_of_kind(facts.sounding_by_instrument(score)):
            key = video, one.heard_instrument
            labels['louder'][key] = one.gain_db
            labels['more rhythmic'][key] = math.log2(max(one.notes_per_second, 0.1))
            labels['longer'][key] = one.sounding_seconds
    return questions, labels


def _rows(statistics: np.ndarray, keys: list, instruments: dict[str, int]) -> np.ndarray:
    """Return a row per (video, instrument): the statistics for all instruments and for this one."""
    rows = np.zeros((len(keys), len(instruments) + 1, statistics.shape[1]), np.float32)
    videos = [video for video, _ in keys]
    rows[np.arange(len(keys)), [instruments[name] for _, name in keys]] = statistics[videos]
    rows[:, -1] = statistics[videos]
    return rows.reshape(len(keys), -1)


def accuracy(
    method: str, statistics: np.ndarray, questions: list, labels: dict, chosen: np.ndarray
) -> float:
    """Return the share of right answers about the videos that are not `chosen` to learn from."""
    from sklearn.linear_model import RidgeClassifierCV, RidgeCV

    if method == METHODS[2]:
        levels = statistics[:, : 3 * 64].reshape(len(statistics), 3, -1)
        levels = (levels - levels[:, :1].mean(-1, keepdims=True)).reshape(len(statistics), -1)
        statistics = np.concatenate([levels, statistics[:, 3 * 64 :]], axis=1)
    known = set(chosen.tolist())
    mean, scale = statistics[chosen].mean(0), statistics[chosen].std(0) + 1e-6
    standard = np.pad((statistics - mean) / scale, ((0, 0), (0, 1)), constant_values=3.0)
    instruments = {name: number for number, name in enumerate(sorted({k for _, k in labels}))}
    make = functools.partial(_rows, standard, instruments=instruments)
    test = [each for each in questions if each[0] not in known]
    first, second = (make([(each[0], each[place]) for each in test]) for place in (1, 2))
    if method == 'answers':
        train = [each for each in questions if each[0] in known]
        one, other = (make([(each[0], each[place]) for each in train]) for place in (1, 2))
        model = RidgeClassifierCV(alphas=PENALTIES, fit_intercept=False)
        says_yes = model.fit(one - other, [each[3] for each in train]).predict(first - second)
    else:
        keys = [key for key in labels if key[0] in known]
        model = RidgeCV(alphas=PENALTIES).fit(make(keys), [labels[key] for key in keys])
        says_yes = model.predict(first) > model.predict(second)
    return float(np.mean(says_yes == np.array([each[3] for each in test])))


def measure(statistics: np.ndarray, questions: dict, labels: dict) -> dict:
    """Return the means and standard deviations [shares, 2] by template and method."""
    curves = {}
    for name in TEMPLATES:
        for method in METHODS:
            points = []
            for share in SHARES:
                found = []
                for seed in range(REPEATS):
                    order = np.random.default_rng(seed).permutation(len(statistics))
                    chosen = np.sort(order[: round(share * len(statistics))])
                    found.append(
                        accuracy(method, statistics, questions[name], labels[name], chosen)
                    )
                points.append((np.mean(found), np.std(found)))
            curves[name, method] = 100 * np.array(points)
            print(
                f'{name:14} {method:22}', *(f'{m:5.1f} ±{s:3.1f}' for m, s in curves[name, method])
            )
    return curves


def draw(curves: dict, videos: int, path: Path) -> None:
    """Draw the curves: accuracy against the number of videos."""
    from matplotlib.figure import Figure

    counts = [round(share * videos) for share in SHARES]
    figure = Figure(figsize=(10, 3.4), layout='constrained')
    axes = figure.subplots(1, len(TEMPLATES), sharey=True)
    for axis, name in zip(axes, TEMPLATES):
        for method in METHODS:
            mean, deviation = curves[name, method].T
            axis.errorbar(counts, mean, deviation, label=method, marker='o', capsize=3)
        axis.axhline(50, color='grey', linewidth=0.8, linestyle=':')
        axis.set(title=name, xlabel='videos learned from', xscale='log')
        axis.set_xticks(counts, [str(count) for count in counts])
        axis.minorticks_off()
    axes[0].set_ylabel('right answers, %')
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure the curves, print them and draw docs/comparisons.png."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--videos', type=int, default=600)
    parser.add_argument('--out', type=Path, default=Path('runs/comparisons'))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    statistics = describe_all(arguments.videos, arguments.out)
    curves = measure(statistics, *read_scores(arguments.videos))
    draw(curves, arguments.videos, Path(__file__).with_name('comparisons.png'))


if __name__ == '__main__':
    main()
