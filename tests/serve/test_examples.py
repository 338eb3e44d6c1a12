"""The rendered performances that a visitor can pick."""

from amuse_jax.serve import examples


def test_six_performances_of_the_test_set_are_copied(workdir, films, tmp_path):
    copied = examples.copy(str(workdir), tmp_path / 'examples')
    assert [path.name for path in copied] == [f'performance-{n}.mp4' for n in range(1, 7)]
    assert copied[0].read_bytes() == films[0].read_bytes()


def test_a_model_without_rendered_videos_has_none(tmp_path):
    assert examples.copy(str(tmp_path), tmp_path / 'examples') == []
    assert not (tmp_path / 'examples').exists()
