"""Which formats are read, which stream of a file is taken, and what FFmpeg would follow."""

import fractions

import av
import numpy as np
import pytest

from amuse_jax.media import audio, container, video

RATE = 32000


@pytest.fixture
def secret(media, tmp_path):
    """A video that the lists below lead to."""
    return media.write(tmp_path / 'secret.mp4', media.Picture(), media.Sound())


MPD = """<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"
 mediaPresentationDuration="PT3S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period>
<AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1000"><BaseURL>secret.mp4
</BaseURL></Representation></AdaptationSet></Period></MPD>"""
CPL = """<?xml version="1.0" encoding="UTF-8"?><CompositionPlaylist
 xmlns="http://www.smpte-ra.org/schemas/2067-3/2016"><Id>urn:uuid:8f7f0000-0000-0000-0000-0</Id>
<ContentTitle>t</ContentTitle><EditRate>24 1</EditRate><SegmentList/></CompositionPlaylist>"""
LISTS = {
    'ffconcat': "ffconcat version 1.0\nfile 'secret.mp4'\n",
    'hls': '#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:3\n#EXT-X-MEDIA-SEQUENCE:0\n'
    '#EXTINF:3.0,\nsecret.mp4\n#EXT-X-ENDLIST\n',
    'hls of addresses': '#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3.0,\nhttp://127.0.0.1:9/a.ts\n'
    '#EXT-X-ENDLIST\n',
    'dash': MPD,
    'imf': CPL,
    'sdp': 'v=0\no=- 0 0 IN IP4 127.0.0.1\ns=a\nc=IN IP4 127.0.0.1\nt=0 0\n'
    'm=audio 49170 RTP/AVP 0\na=rtpmap:0 PCMU/8000\n',
    'rtsp redirection': '[Reference]\nRef1=http://127.0.0.1:9/a.mp4\n',
    'asx': '<asx version="3.0"><entry><ref href="http://127.0.0.1:9/a.mp4"/></entry></asx>',
    'pls': '[playlist]\nFile1=secret.mp4\nNumberOfEntries=1\nVersion=2\n',
    'vobsub': '# VobSub index file, v7 (do not modify this line!)\nid: en, index: 0\n'
    'timestamp: 00:00:01:000, filepos: 000000000\n',
    'xspf': '<?xml version="1.0"?><playlist version="1" xmlns="http://xspf.org/ns/0/"><trackList>'
    '<track><location>secret.mp4</location></track></trackList></playlist>',
    'mov reference': 'rtsptextRTSP://127.0.0.1:9/a.mov\r\n',
    'filter graph': 'movie=secret.mp4\n',
}


@pytest.mark.parametrize('name', LISTS)
@pytest.mark.parametrize('ending', ['mp4', 'm3u8'])
def test_a_list_of_other_files_is_not_followed(name, ending, secret, tmp_path):
    path = tmp_path / f'list.{ending}'
    path.write_text(LISTS[name])
    for read in (lambda: video.read_frames(path, [0.5], 16), lambda: audio.read_audio(path, 8, 1)):
        with pytest.raises(container.MediaError, match='its format is not read|not a video'):
            read()


def test_ffmpeg_itself_would_follow_a_list(secret, tmp_path):
    """Without the list of formats the test above would read the other file."""
    path = tmp_path / 'list.mp4'
    path.write_text(LISTS['ffconcat'])
    with av.open(str(path)) as opened:
        assert opened.format.name == 'concat' and opened.streams.video
    with pytest.raises(container.MediaError, match='and no list of other files$'):
        video.read_frames(path, [0.5], 16)


@pytest.mark.parametrize('name', ['%01d.png', '1.png', 'concat:a|b.mp4', 'tone.lavfi', '*.png'])
def test_a_name_is_no_pattern_of_an_image_sequence(name, tmp_path):
    frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), 'rgb24')
    with av.open(str(tmp_path / '1.png'), 'w', format='image2') as opened:
        stream = opened.add_stream('png', rate=1)
        stream.width, stream.height, stream.pix_fmt = 16, 16, 'rgb24'
        for packet in [*stream.encode(frame), *stream.encode()]:
            opened.mux(packet)
    path = tmp_path / name
    path.write_bytes((tmp_path / '1.png').read_bytes())
    with pytest.raises(container.MediaError, match='its format is not read|not a video'):
        video.read_frames(path, [0.5], 16)


def write_two(path, first, second, default=0):
    """Write two sounds of 1 s, with these amplitudes; `default` is the number of the default."""
    with av.open(str(path), 'w') as opened:
        streams = [opened.add_stream('aac', rate=RATE, layout='mono') for _ in range(2)]
        for number, stream in enumerate(streams):
            stream.disposition = av.stream.Disposition(int(number == default))
        for stream, amplitude in zip(streams, (first, second)):
            samples = amplitude * np.sin(np.arange(RATE) * 2 * np.pi * 440 / RATE)
            frame = av.AudioFrame.from_ndarray(
                samples.astype(np.float32)[None], format='fltp', layout='mono'
            )
            frame.sample_rate, frame.pts = RATE, 0
            frame.time_base = fractions.Fraction(1, RATE)
            for packet in [*stream.encode(frame), *stream.encode()]:
                opened.mux(packet)
    return path


def amplitude(path):
    samples, _ = audio.read_audio(path, RATE, 1.0)
    return float(samples[RATE // 4 : RATE // 2].std() * np.sqrt(2))


def forget_codec(data, count):
    """Give the first `count` sounds of an mp4 a codec that FFmpeg has no decoder for."""
    data, place = bytearray(data.replace(b'mp4a', b'xxxx', count)), 0
    for _ in range(count):
        place = data.index(b'esds', place + 1)
        kind = data.index(b'\x04\x80\x80\x80', place) + 5  # the object type, 0x40 for AAC
        assert data[kind] == 0x40
        data[kind] = 0xFE
    return data


def test_the_sound_that_is_marked_as_default_is_heard(tmp_path):
    assert amplitude(write_two(tmp_path / 'a.mkv', 0.0, 0.3, default=1)) == pytest.approx(
        0.3, abs=0.02
    )
    assert amplitude(write_two(tmp_path / 'b.mkv', 0.1, 0.3, default=0)) == pytest.approx(
        0.1, abs=0.02
    )
    assert amplitude(write_two(tmp_path / 'c.mkv', 0.1, 0.3, default=9)) == pytest.approx(
        0.1, abs=0.02
    )


@pytest.mark.parametrize('damage', ['codec', 'content'])
def test_the_first_sound_that_can_be_decoded_is_heard(damage, tmp_path):
    path = write_two(tmp_path / 'a.mp4', 0.1, 0.3)
    data = path.read_bytes()
    if damage == 'codec':
        data = forget_codec(data, 1)
    else:
        with av.open(str(path)) as opened:
            packets = [p for p in opened.demux(opened.streams.audio[0]) if p.size]
        data = bytearray(data)
        for packet in packets:
            data[packet.pos : packet.pos + packet.size] = b'\xff' * packet.size
    path.write_bytes(data)
    assert amplitude(path) == pytest.approx(0.3, abs=0.02)


def test_a_file_of_which_nothing_can_be_decoded_gives_the_first_reason(tmp_path):
    path = write_two(tmp_path / 'a.mp4', 0.1, 0.3)
    path.write_bytes(forget_codec(path.read_bytes(), 2))
    with pytest.raises(container.MediaError, match='^its sound has an unknown codec$'):
        audio.read_audio(path, RATE, 1.0)


def test_an_encrypted_file_is_refused(media, tmp_path):
    options = {
        'encryption_scheme': 'cenc-aes-ctr',
        'encryption_key': '76a6c65c5ea762046bd749a2e632ccbb',
        'encryption_kid': 'a7e61c373e219033c21091fa607bf3b8',
    }
    path = media.write(tmp_path / 'a.mp4', media.Picture(), media.Sound(), options=options)
    with pytest.raises(container.MediaError, match='^its sound is encrypted$'):
        audio.read_audio(path, RATE, 3.0)
    with pytest.raises(container.MediaError, match='^its picture is encrypted$'):
        video.read_frames(path, [0.5], 16)
