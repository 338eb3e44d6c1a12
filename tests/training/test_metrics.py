import json
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from amuse_jax.training.metrics import MetricsWriter


def test_lines_after_the_checkpoint_are_cut_off_and_written_again(tmp_path):
    first = MetricsWriter(tmp_path)
    for step in (1, 2, 3):
        first.write(step, 0, {'loss': 1.0 / step})
    first.close()
    with open(first.path, 'a') as file:
        file.write('{"step": 4, "lo')  # a kill in the middle of a line
    second = MetricsWriter(tmp_path, lines=2, step=2)
    assert second.lines == 2
    second.write(3, 1, {'loss': 0.5})
    second.sync()
    second.close()
    rows = [json.loads(line) for line in first.path.read_text().splitlines()]
    assert [row['step'] for row in rows] == [1, 2, 3]
    assert rows[-1] == {'step': 3, 'epoch': 1, 'loss': 0.5}


def test_a_fresh_start_forgets_an_older_file(tmp_path):
    (tmp_path / 'metrics.jsonl').write_text('{"step": 1}\n')
    MetricsWriter(tmp_path).close()
    assert (tmp_path / 'metrics.jsonl').read_text() == ''


def test_tensorboard_reads_the_scalars(tmp_path):
    writer = MetricsWriter(tmp_path)
    writer.write(5, 1, {'loss': 0.25, 'val_accuracy': 0.5})
    writer.close()
    events = EventAccumulator(str(tmp_path / 'tensorboard'))
    events.Reload()
    assert set(events.Tags()['scalars']) == {'loss', 'val_accuracy'}
    assert [(e.step, e.value) for e in events.Scalars('loss')] == [(5, 0.25)]


def test_writing_metrics_needs_no_torch():
    assert 'torch' not in sys.modules or 'tensorboardX' not in sys.modules
