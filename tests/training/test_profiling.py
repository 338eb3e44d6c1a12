"""The trace of a real run of the toy job."""

import gzip
import json

from amuse_jax.training import loop
from tests.training import toy_job


def traces(folder):
    return sorted(folder.glob('tensorboard/plugins/profile/*/*'))


def test_the_steps_are_traced_for_tensorboard_and_perfetto(tmp_path):
    job, params = toy_job.job(tmp_path, epochs=(2, 1), profile_steps='5:8')
    loop.fit(job, params)
    found = traces(tmp_path)
    assert len({path.parent for path in found}) == 1
    assert [path for path in found if path.name.endswith('.xplane.pb')]
    (perfetto,) = [path for path in found if path.name == 'perfetto_trace.json.gz']
    events = json.loads(gzip.decompress(perfetto.read_bytes()))['traceEvents']
    steps = [event for event in events if event.get('name') == 'train']
    assert sorted(int(event['args']['step_num']) for event in steps) == [5, 6, 7]


def test_a_run_that_ends_early_still_writes_its_trace(tmp_path):
    job, params = toy_job.job(tmp_path, epochs=(1,), profile_steps='5:999')
    loop.fit(job, params)
    assert [path for path in traces(tmp_path) if path.name == 'perfetto_trace.json.gz']


def test_no_step_is_traced_by_default(tmp_path):
    job, params = toy_job.job(tmp_path, epochs=(1,))
    loop.fit(job, params)
    assert not traces(tmp_path)
