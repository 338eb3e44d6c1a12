import json

import pytest
from ml_collections import ConfigDict

from amuse_jax.errors import NewerFormat, StageError
from amuse_jax.run.stage import Stage, run_stage
from amuse_jax.system import formats

CALLS = []


def _remember(name):
    def run(config, folder, inputs):
        CALLS.append(name)
        (folder / 'artefact').write_text(name + ''.join(sorted(inputs)))
        return {'name': name}

    return run


@pytest.fixture
def config():
    CALLS.clear()
    return ConfigDict({'a': {'x': 1, 'y': 2}, 'b': 3, 'c': 4})


def _stages():
    """Return four stages: second and aside need first, third needs second."""
    stages = (
        Stage('first', _remember('first'), settings=('a.x',)),
        Stage('second', _remember('second'), ('first',), ('b',)),
        Stage('aside', _remember('aside'), ('first',), ('c',)),
        Stage('third', _remember('third'), ('second',), ()),
    )
    return {stage.name: stage for stage in stages}


def _run_all(config, workdir):
    CALLS.clear()
    stages = _stages()
    for stage in stages.values():
        run_stage(stage, config, workdir, stages)
    return list(CALLS)


def test_a_second_run_does_nothing(config, tmp_path):
    assert _run_all(config, tmp_path) == ['first', 'second', 'aside', 'third']
    assert _run_all(config, tmp_path) == []
    assert (tmp_path / 'third' / 'artefact').read_text() == 'thirdsecond'


@pytest.mark.parametrize(
    ('change', 'again'),
    [
        ({'a': {'x': 5}}, ['first', 'second', 'aside', 'third']),
        ({'a': {'y': 5}}, []),
        ({'b': 5}, ['second', 'third']),
        ({'c': 5}, ['aside']),
    ],
)
def test_a_changed_setting_repeats_the_stages_that_depend_on_it(config, tmp_path, change, again):
    _run_all(config, tmp_path)
    config.update(change)
    assert _run_all(config, tmp_path) == again


def test_a_stage_refuses_missing_and_stale_inputs(config, tmp_path):
    stages = _stages()
    with pytest.raises(StageError, match='needs the stage first, which is not finished'):
        run_stage(stages['second'], config, tmp_path, stages)
    run_stage(stages['first'], config, tmp_path, stages)
    config.a.x = 7
    with pytest.raises(StageError, match=r'a\.x is 7 and was 1'):
        run_stage(stages['second'], config, tmp_path, stages)


def test_an_unfinished_stage_keeps_its_parts_only_for_the_same_settings(config, tmp_path):
    stages = _stages()
    parts_at_start = []

    def die_twice(_config, folder, _inputs):
        parts_at_start.append(sorted(p.name for p in folder.glob('part*')))
        (folder / f'part{len(parts_at_start)}').write_text('')
        if len(parts_at_start) < 3:
            raise KeyboardInterrupt
        return {}

    stage = Stage('dying', die_twice, settings=('b',))
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run_stage(stage, config, tmp_path, stages)
    assert parts_at_start == [[], ['part1']]
    config.b = 9
    run_stage(stage, config, tmp_path, stages)
    assert parts_at_start[-1] == []


def test_a_folder_with_other_files_is_not_emptied(config, tmp_path):
    stages = _stages()
    (tmp_path / 'first').mkdir()
    (tmp_path / 'first' / 'thesis.tex').write_text('years of work')
    with pytest.raises(StageError, match='holds files that amuse_jax did not write'):
        run_stage(stages['first'], config, tmp_path, stages)
    assert (tmp_path / 'first' / 'thesis.tex').exists()


@pytest.mark.parametrize(
    'text', ['{"half', '[]', '{"no": "format"}', '{"format": "1"}', '{"format": null}']
)
def test_a_damaged_manifest_is_one_sentence(config, tmp_path, text):
    _run_all(config, tmp_path)
    (tmp_path / 'first' / 'manifest.json').write_text(text)
    with pytest.raises(StageError, match='is not a manifest'):
        _run_all(config, tmp_path)


def test_a_newer_manifest_is_refused(config, tmp_path):
    _run_all(config, tmp_path)
    path = tmp_path / 'first' / 'manifest.json'
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {'format': formats.FORMAT + 1}))
    expected = r'manifest.json has format 3, .* reads up to 2; update amuse_jax, or use another'
    with pytest.raises(NewerFormat, match=expected):
        _run_all(config, tmp_path)
    assert path.exists()
