"""An estimate of the hours that the stages before training will take on this host."""

from collections.abc import Collection

from ml_collections import ConfigDict

from amuse_jax.features import catalogue
from amuse_jax.system import cpus, gpus
from amuse_jax.system.sharded import part_slice

# Seconds of one CPU for a minute of 640x360 pixels and 25 frames per second, measured on one video
# and one machine: decoding and log-mel; librosa's beat tracker; ten pictures through YOLOv8n at 640
# pixels.
CPU_SECONDS = {'prepare': 0.8, 'annotate': 0.7, 'rois': 1.0}
STAGES = frozenset({*CPU_SECONDS, 'features'})  # whose seconds are in features/catalogue.py
# The same of rois with a GPU: what is left for the CPUs is decoding, by several threads.
DECODE_SECONDS = 0.4


def estimate(
    config: ConfigDict, stages: Collection[str], videos: int, gpu_count: int, cpu_count: int
) -> dict[str, float]:
    """Return the hours of each stage, without the networks that find sources.

    Args:
      config: the run's config.
      stages: names of the stages that will run.
      videos: number of videos in the data set.
      gpu_count: number of GPUs of this host.
      cpu_count: number of CPUs that this process may use.
    """
    if config.data.part:
        videos = -(-videos // part_slice(config.data.part).step)
    cpu_workers = config.data.workers or cpu_count
    hours = {}
    for name in CPU_SECONDS:
        if name not in stages:
            continue
        seconds, workers = CPU_SECONDS[name], cpu_workers
        if name == 'annotate' and config.sources.stems != 'truth':
            workers = max(gpu_count, 1)  # one process per GPU, or one with all CPUs
        if name == 'rois' and gpu_count:
            seconds, workers = DECODE_SECONDS, cpu_count
        hours[name] = videos * seconds / workers / 3600
    if 'features' in stages:
        seconds = _feature_seconds(config, bool(gpu_count))
        workers = cpu_count if gpu_count else cpu_workers
        hours['features'] = videos * seconds / workers / 3600
    return hours


def _feature_seconds(config: ConfigDict, has_gpu: bool) -> float:
    """Return the seconds of one CPU for the features of one video.

    With a GPU what is left for the CPUs is to read the files, and to compute the spectra.
    """
    extractors = catalogue.chosen(config.features.arrays)
    return sum(each.read_seconds if has_gpu else each.cpu_seconds for each in extractors)


def describe(config: ConfigDict, stages: Collection[str], videos: int) -> str:
    """Return a sentence with the estimate for this host; some of STAGES must be in `stages`."""
    gpu_count, cpu_count = len(gpus.visible()), cpus.usable()
    hours = estimate(config, stages, videos, gpu_count, cpu_count)
    parts = ', '.join(f'{name} {each:.1f}' for name, each in hours.items())
    networks = ''
    if 'annotate' in hours and config.sources.stems == 'uss':
        networks = '; the separation of sources comes on top and is measured when it starts'
    elif 'annotate' in hours and config.sources.stems != 'truth':
        networks = '; the tagger that finds the sources comes on top'
    share = f', of which this job does part {config.data.part}' if config.data.part else ''
    return (
        f'about {sum(hours.values()):.1f} hours before training ({parts}) for {videos:,} videos'
        f'{share}, with {cpu_count} CPUs and {gpu_count} GPUs{networks}. This is an '
        'estimate from the time of one video of 640x360 pixels on one machine. --config.data.part '
        'shares the work among jobs (docs/launches.md)'
    )
