import pytest

from amuse_jax.errors import StageError
from amuse_jax.music_avqa import layout, published_files, videos

TABLE = """\
video_id,start_time,duration,suffix,has_flip
ciAuN83h20Y,0:00,1:00,,N
-f7FEpt567k,19:28,1:00,,Y
6cjIJVzP6eI,6:54,0:46,_#02,Y
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / 'table.csv'
    path.write_text(TABLE, 'utf-8-sig')
    return path


@pytest.mark.parametrize(
    'names, performance',
    [
        (('6cjIJVzP6eI', '6cjIJVzP6eI_flip'), '6cjIJVzP6eI'),
        (('6cjIJVzP6eI_#02', '6cjIJVzP6eI_#05_flip'), '6cjIJVzP6eI'),
        (('-f7FEpt567k', '-f7FEpt567k_flip'), '-f7FEpt567k'),
        (('_0CQfDw5nu0_flip',), '_0CQfDw5nu0'),
        (('00000004',), '00000004'),
        (('esa00000004',), 'esa00000004'),
        (('vv00000004',), 'vv00000004'),
        (('mine', 'mine_flip'), 'mine'),
        (('mine_#02',), 'mine_#02'),
    ],
)
def test_the_names_of_one_performance(names, performance):
    assert {videos.performance_name(name) for name in names} == {performance}


def test_the_table_of_additional_videos(path):
    found, complaints = videos.read_additional(path)
    assert not complaints
    assert list(found) == [
        'ciAuN83h20Y', '-f7FEpt567k', '-f7FEpt567k_flip', '6cjIJVzP6eI_#02', '6cjIJVzP6eI_#02_flip'
    ]  # fmt: skip
    assert found['6cjIJVzP6eI_#02_flip'] == videos.AdditionalVideo(
        '6cjIJVzP6eI_#02_flip', '6cjIJVzP6eI', 414, 46, True
    )
    assert found['-f7FEpt567k'].start_seconds == 1168 and found['-f7FEpt567k'].seconds == 60


@pytest.mark.parametrize(
    'line, reason',
    [
        ('short,0:00,1:00,,N', 'not named after'),
        ('../../../etc,0:00,1:00,,N', 'not the plain name'),
        ('ciAuN83h20Z,0:00,1:00,,maybe', 'has_flip'),
        ('ciAuN83h20Z,0:61,1:00,,N', 'not a time'),
        ('ciAuN83h20Z,0:00', 'has_flip'),
        ('ciAuN83h20Y,0:00,1:00,,N', 'in the table already'),
    ],
)
def test_a_malformed_row_is_named(line, reason, path):
    path.write_text(TABLE + line + '\n', 'utf-8-sig')
    found, (complaint,) = videos.read_additional(path)
    assert len(found) == 5
    assert complaint.startswith('table.csv, row 3: ') and reason in complaint


@pytest.mark.parametrize('content', [b'', b'video_id,start\n', b'\xff\xfe\x00', b'a\x00b'])
def test_a_file_that_is_not_the_table(content, path):
    path.write_bytes(content)
    with pytest.raises(StageError, match='is not the table of additional videos'):
        videos.read_additional(path)


def test_the_published_table(real_path):
    folder = real_path('v2_test_bias').parent
    path = layout.find_additional(folder)
    if path is None:
        pytest.skip(f'the table is not in {folder}')
    found, complaints = videos.read_additional(path)
    assert not complaints and len(found) == published_files.ADDITIONAL_VIDEOS


def test_names_of_real_videos(real):
    names = {q.video_id for q in real('v2_test_bias')}
    added = {name for name in names if not name[-8:].isdigit()}
    assert len(added) == 376
    assert sum(name.endswith('_flip') for name in added) == 12
    assert sum('#' in name for name in added) == 2
    assert all(len(videos.performance_name(name)) == 11 for name in added)
    assert all(videos.performance_name(name) == name for name in names - added)
