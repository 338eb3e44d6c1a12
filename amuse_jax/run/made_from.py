"""What a stage's result was made from, and how this differs from what the present config asks for.

Both are dicts of JSON values with these keys:

  settings     all config values that determine the result, by dotted name, nested in sections
  chosen       names of those that differ from the defaults of the version that made the result
  contents     entries (system/contents.py) of the files and folders that settings name, and of the
               data set's files in truth/ that the stage reads, by their pattern
  needs        fingerprints of the results that it was made from, by stage
  sources      hash of the data set's files that the stage reads (data/sources.py), or ''
  redo         a number that `--redo` draws, or ''
  fingerprint  hash of all of these

A setting at its default does not count, so that a later version may have more settings or other
defaults. A path counts by the content that it leads to.
"""

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from ml_collections import ConfigDict

from amuse_jax.config import default_config, setting
from amuse_jax.system import contents

# Settings that may name a file or a folder. Most of them may also be a name on the hub.
PATHS = (
    'rois.weights', 'sources.weights', 'checkpoints.visual', 'checkpoints.audio',
    'checkpoints.text', 'model.text.tokenizer', 'features.vggish', 'features.resnet18',
    'features.clip', 'features.ast', 'peer.grounding.weights',
)  # fmt: skip
# Settings of the data sets. The hash of the files that are read stands for them.
ROOTS = ('data.root', 'data.rephrased', 'evaluate.data.root', 'evaluate.data.rephrased')
# Folders of videos, separated by commas. A video is the same wherever it is found.
VIDEO_FOLDERS = ('data.videos', 'evaluate.data.videos')
_TRUTH = 'truth/'  # folder of the data set, and prefix of its entries among the contents


def describe(
    config: ConfigDict,
    names: tuple[str, ...],
    needs: Mapping[str, str | None],
    sources: str = '',
    redo: str = '',
    known: Mapping[str, contents.Entry] | None = None,
    truth: str = '',
) -> dict:
    """Return what a stage would be made from with this config.

    Args:
      config: the run's config.
      names: dotted names of the settings; the name of a section stands for the whole section.
      needs: fingerprints by stage; None where one is not known.
      sources: hash of the data set's files.
      redo: the number that `--redo` drew.
      known: earlier `contents`; a file whose size and time are the same is not read again.
      truth: pattern of the files in the data set's folder truth/ that count; '' for none.
    """
    settings = _json({name: _plain(setting(config, name)) for name in names})
    flat = flatten(settings)
    made = {
        'settings': settings,
        'chosen': sorted(name for name, value in flat.items() if is_chosen(name, value)),
        'contents': measure_paths(flat, known or {}) | _measure_truth(config, known or {}, truth),
        'needs': dict(needs),
        'sources': sources,
        'redo': redo,
    }
    return made | {'fingerprint': fingerprint(made)}


def fingerprint(made: Mapping) -> str:
    """Return the hash of everything that counts in what a result was made from."""
    flat = flatten(made['settings'])
    content = {
        'settings': {
            name: made['contents'][name][2] if name in made['contents'] else flat[name]
            for name in made['chosen']
            if name not in (*ROOTS, *VIDEO_FOLDERS)
        },
        **{name: made[name] for name in ('needs', 'sources', 'redo')},
        **{name: made['contents'][name][2] for name in _truth_names(made)},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def differences(recorded: Mapping, wanted: Mapping, is_finished: bool) -> list[str]:
    """Return why the recorded result is not the wanted one; [] if it is.

    The stages before it are not compared, and neither is the data set.

    Args:
      recorded: what the result was made from.
      wanted: what the present config asks for.
      is_finished: whether the result is complete. A finished result counts although a default has
        changed since; an unfinished one would go on with other values.
    """
    old, new = flatten(recorded['settings']), flatten(wanted['settings'])
    reasons = []
    for name in sorted(set(old) | set(new)):
        if name in VIDEO_FOLDERS:
            continue
        if name in ROOTS and bool(old.get(name)) == bool(new.get(name)):
            continue
        counts = name in recorded['chosen'] or name in wanted['chosen']
        if name not in old or name not in new:
            if counts:
                reasons.append(f'{name} is {_shown(name, new)} and was {_shown(name, old)}')
        elif old[name] == new[name]:
            before, now = (made['contents'].get(name) for made in (recorded, wanted))
            if before and now and before[2] != now[2]:
                reasons.append(f'the content of {name}, {new[name]!r}, has changed')
        elif (counts or not is_finished) and not _is_same_path(name, recorded, wanted):
            reasons.append(f'{name} is {new[name]!r} and was {old[name]!r}')
    for name in set(_truth_names(recorded)) & set(_truth_names(wanted)):
        if recorded['contents'][name][2] != wanted['contents'][name][2]:
            reasons.append(f"the data set's {name} have changed")
    return reasons


def moved_roots(recorded: Mapping, wanted: Mapping) -> list[str]:
    """Return a phrase for each data set that is in another folder now.

    It counts for results without a hash of the data set's files.
    """
    old, new = flatten(recorded['settings']), flatten(wanted['settings'])
    return [
        f'{name} is {new[name]!r} and was {old[name]!r}'
        for name in ROOTS
        if old.get(name)
        and new.get(name)
        and Path(old[name]).resolve() != Path(new[name]).resolve()
    ]


def with_roots(settings: Mapping, present: Mapping) -> dict:
    """Return recorded settings with the present folders of the data sets."""
    names = ('data.root', 'data.videos', 'data.rephrased', 'evaluate.data')
    return {**settings, **{name: present[name] for name in names if name in present}}


def flatten(settings: Mapping, prefix: str = '') -> dict:
    """Return nested settings as one dict by dotted name."""
    flat = {}
    for name, value in settings.items():
        inner = value if isinstance(value, Mapping) else None
        flat |= {prefix + name: value} if inner is None else flatten(inner, f'{prefix}{name}.')
    return flat


def measure_paths(flat: Mapping, known: Mapping) -> dict[str, contents.Entry]:
    """Return the entries of the files and folders that flat settings name.

    A file whose size and time are those of its entry in `known` is not read again.
    """
    found = {
        name: contents.measure(Path(flat[name]), known.get(name))
        for name in PATHS
        if flat.get(name) and flat[name] != 'questions'  # the tokenizer of that name is no file
    }
    return {name: entry for name, entry in found.items() if entry is not None}


def _measure_truth(config: ConfigDict, known: Mapping, pattern: str) -> dict:
    """Return the entry of the data set's files in truth/ by their pattern; {} if there are none."""
    if not pattern or not config.data.root:  # rendered files follow from `render`'s settings
        return {}
    name = _TRUTH + pattern
    entry = contents.measure(Path(config.data.root, _TRUTH), known.get(name), pattern)
    return {} if entry is None else {name: entry}


def _truth_names(made: Mapping) -> list[str]:
    return sorted(name for name in made['contents'] if name.startswith(_TRUTH))


def is_chosen(name: str, value) -> bool:
    """Return whether a setting has another value than its default."""
    defaults = _defaults()
    return name not in defaults or defaults[name] != value


def _is_same_path(name: str, recorded: Mapping, wanted: Mapping) -> bool:
    """Return whether two paths lead to the same content, as far as can be told."""
    if name not in PATHS:
        return False
    before, now = (made['contents'].get(name) for made in (recorded, wanted))
    if before and now:
        return before[2] == now[2]
    old, new = (Path(flatten(made['settings'])[name]) for made in (recorded, wanted))
    if old.resolve() == new.resolve():
        return True
    # Format 1 recorded no contents, and the old path may be gone, such as another mount point.
    is_moved = not before and old.is_absolute() and not old.exists() and now is not None
    return is_moved and old.name == new.name


def _shown(name: str, flat: Mapping) -> str:
    return repr(flat[name]) if name in flat else 'not set'


@functools.cache
def _defaults() -> dict:
    return flatten(_json(default_config().to_dict()))


def _plain(value):
    return value.to_dict() if isinstance(value, ConfigDict) else value


def _json(value):
    return json.loads(json.dumps(value))
