"""Checks the files, counts and videos of a MUSIC-AVQA folder.

python -m amuse_jax.music_avqa check --root=DIR --annotations=v1
python -m amuse_jax.music_avqa check --root=DIR --annotations=v2-balance --json=found.json

The command reads every video, on all cores, and prints what it finds beside what was published. Its
exit status is 1 if the folder is not fit to train on.
"""

import dataclasses
import sys

from absl import app, flags

from amuse_jax.errors import StageError
from amuse_jax.music_avqa import layout
from amuse_jax.system import environment, paths

ROOT = flags.DEFINE_string('root', '', 'Folder of the data set, with videos/ and annotation files.')
ANNOTATIONS = flags.DEFINE_enum(
    'annotations', 'v1', layout.SCHEMES, 'Which annotation files; see config.data.annotations.'
)
REPHRASED = flags.DEFINE_string(
    'rephrased', '', 'Rephrased test questions; see config.data.rephrased.'
)
VIDEOS = flags.DEFINE_string('videos', '', 'Folders of the videos; see config.data.videos.')
MAX_BROKEN_SHARE = flags.DEFINE_float(
    'max_broken_share', None, 'Accepted share of unusable videos; see config.data.max_broken_share.'
)
WORKERS = flags.DEFINE_integer(
    'workers', 0, 'Number of processes; 0 for one per core.', lower_bound=0
)
JSON = flags.DEFINE_string('json', '', 'File for the whole report, with the name of every video.')


def main(argv: list[str]) -> None:
    """Run the command."""
    environment.set_up()
    if argv[1:] != ['check']:
        raise app.UsageError('expected one command, check')
    from amuse_jax.config import default_config
    from amuse_jax.media import guarded
    from amuse_jax.music_avqa import check
    from amuse_jax.system.files import write_json

    data = default_config().data
    allowed, limits = MAX_BROKEN_SHARE.value, guarded.Limits.from_settings(data)
    allowed = data.max_broken_share if allowed is None else allowed
    try:
        root = paths.from_user(ROOT.value, '--root')
        report_file = paths.from_user(JSON.value, '--json')
        if not ROOT.value or not root.is_dir():
            raise StageError(f'--root is {ROOT.value!r}; expected the folder of the data set')
        report = check.check(
            root, ANNOTATIONS.value, REPHRASED.value, allowed, limits, WORKERS.value, VIDEOS.value
        )
    except StageError as error:
        sys.exit(f'amuse_jax: {error}')
    print(report.text())
    if JSON.value:
        write_json(report_file, dataclasses.asdict(report))
    if report.wrong:
        sys.exit('\namuse_jax: training on this would be wrong:\n- ' + '\n- '.join(report.wrong))
    print('\nFit to train on.')


if __name__ == '__main__':
    app.run(main)
