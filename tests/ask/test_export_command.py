import pytest
from absl import app, flags
from absl.testing import flagsaver

from amuse_jax.ask import export_command, exported
from amuse_jax.errors import StageError


@pytest.fixture(scope='module')
def source(make_trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp('source') / 'model'
    exported.write(make_trained('encoder'), folder)
    return folder


@pytest.fixture(autouse=True)
def parsed():
    flags.FLAGS.mark_as_parsed()


def test_the_folder_is_written_and_listed(source, tmp_path, capsys):
    with flagsaver.flagsaver((export_command.OUT, str(tmp_path / 'to/model'))):
        export_command.export(str(source))
    printed = capsys.readouterr().out
    for path in source.iterdir():
        assert (tmp_path / 'to/model' / path.name).read_bytes() == path.read_bytes()
        assert f'MB  {tmp_path}/to/model/{path.name}' in printed


def test_a_used_folder_is_refused_before_the_model_is_read(tmp_path):
    (tmp_path / 'a').touch()
    with flagsaver.flagsaver((export_command.OUT, str(tmp_path))):
        with pytest.raises(StageError, match='exists already'):
            export_command.export('no/such/model')


@pytest.mark.parametrize('arguments', [['export'], ['export', 'a', 'b'], ['export', 'a']])
def test_a_model_and_a_folder_are_needed(arguments):
    with pytest.raises(app.UsageError, match='expected a model and a folder'):
        export_command.main(arguments)
