"""Default settings. Section, equation and table numbers in the comments refer to the paper.

The files in configs/ start from `default_config()` and change what differs.
"""

from ml_collections import ConfigDict

PARTS = ('encoder', 'rhythm', 'sources', 'rois')  # that can be left out: the ablations of Table 4


def parse_without(argument: str) -> str:
    """Read the argument behind the name of a config, `configs/demo.py:without=rois`.

    Returns:
      The part to leave out; '' for none.

    Raises:
      ValueError: the argument is neither empty nor `without=` and one of PARTS.
    """
    if not argument:
        return ''
    name, _, part = argument.partition('=')
    if name != 'without' or part not in PARTS:
        raise ValueError(
            f'config argument {argument!r} is unknown; expected without=' + '|'.join(PARTS)
        )
    return part


def default_config() -> ConfigDict:
    """Return the default settings, at the size of the paper's models."""
    c = ConfigDict()
    c.name = 'base'
    c.seed = 0  # of pretraining and training; data has seeds of its own
    c.without = ''  # part left out, as in Table 4: encoder, rhythm, sources or rois

    # Rendered performances; 0 videos: none, config.data.root holds a data set.
    c.synthetic = ConfigDict(
        dict(
            videos=0,
            seed=0,
            width=320,
            height=180,
            fps=10,
            questions_per_video=12,
            val_share=0.1,
            test_share=0.2,
        )
    )

    c.data = ConfigDict(
        dict(
            root='',  # folder with videos/ and annotation files; '': what the render stage wrote
            # Which annotation files: plain (avqa-{train,val,test}.json), v1, v1-json, v1-by-video,
            # v2-balance or v2-bias; see amuse_jax/music_avqa/layout.py.
            annotations='plain',
            # MUSIC-AVQA-R's rephrased test questions: its file or folder, from root; '': none.
            rephrased='',
            segments=10,  # T, 4.1
            segment_seconds=6.0,  # t, Eq. 4
            image_size=192,
            max_broken_share=0.05,  # of the videos; more is an error
            # A video is set aside if its picture or its sound takes longer to read, or more memory
            # (in 1e9 bytes). For a minute of 640x360 the two take 0.7 s and 0.2 GB together; for a
            # minute of 4K, of which every frame must be decoded, about 60 s and 0.2 GB.
            read_seconds=300.0,
            read_gigabytes=4.0,
            shard_videos=64,  # records per file; what a kill costs each worker
            workers=0,  # processes for per-video work; 0: one per core
            # Options of an Apache Beam pipeline that prepares, annotates and finds regions instead,
            # such as '--runner=FlinkRunner --flink_master=HOST:8081'; '': none.
            beam='',
        )
    )
    # HTS-AT's front end (Chen et al. 2022, its released configuration).
    c.audio = ConfigDict(
        dict(sample_rate=32000, window=1024, hop=320, mels=64, low_hz=50.0, high_hz=14000.0)
    )

    # Eq. 4-6. The authors' released code uses 3 s and 0.3.
    c.rhythm = ConfigDict(
        dict(
            segment_seconds=6.0,
            threshold=0.25,  # share of the whole audio's tempo
            sample_rate=22050,  # Hz, librosa's default
            # 'librosa': its beat tracker; 'tempo': the same tempo without placing beats, quicker.
            tracker='librosa',
        )
    )
    c.sources = ConfigDict(
        dict(
            # 'uss': Universal Source Separation; 'truth': a rendered performance's own stems;
            # 'tags': no stems, HTS-AT's AudioSet classes (pretrained/tagging.py).
            stems='uss',
            weights='',  # of uss, '': its own download; of HTS-AT's tagger, a file or a hub name
            window_seconds=1.0,  # an instrument is counted once per window in which it sounds
            threshold_db=-40.0,  # a stem sounds above this level, relative to full scale
            threshold_score=0.2,  # a class is heard from this score on
        )
    )
    # 3.3: YOLOv8.
    c.rois = ConfigDict(
        dict(
            weights='',  # any YOLOv8 .pt file; '': train one on the data set's boxes
            image_size=640,  # pixels of the longer side
            regions=12,  # K, best boxes per segment
            min_score=0.25,  # ultralytics' default
            max_overlap=0.7,  # IoU with a better region of the same class; ultralytics' default
            feature_size=448,  # channels of the three feature maps that the regions are pooled from
            detector=ConfigDict(
                dict(
                    width=0.25,  # of YOLOv8's channels; 0.25 is YOLOv8n, 0.5 YOLOv8s
                    depth=0.33,  # of YOLOv8's layers; 0.33 is YOLOv8n and YOLOv8s
                    epochs=50,
                    batch_size=16,
                    frames=0,  # pictures per video to learn from; 0: all whose boxes are known
                    learning_rate=0.1,  # highest, of Muon
                    seed=0,
                )
            ),
        )
    )

    c.model = ConfigDict(
        dict(
            dtype='float32',
            # Swin-V2-L, 4.1
            visual=ConfigDict(
                dict(
                    image_size=192,
                    patch=4,
                    width=192,
                    depths=(2, 2, 18, 2),
                    heads=(6, 12, 24, 48),
                    window=12,
                )
            ),
            # HTS-AT, 4.1
            audio=ConfigDict(
                dict(
                    image_size=256,
                    patch=4,
                    width=96,
                    depths=(2, 2, 6, 2),
                    heads=(4, 8, 16, 32),
                    window=8,
                )
            ),
            text=ConfigDict(
                dict(
                    # Hub name or tokenizer.json; 'questions': the data set's own words.
                    tokenizer='bert-base-uncased',
                    max_words=32,
                    width=768,
                    depth=12,
                    heads=12,
                    mlp_width=3072,
                    epsilon=1e-12,  # of its norms; RoBERTa's is 1e-5
                )
            ),
            adapters=ConfigDict(
                dict(rounds=6, width=256, heads=4, mlp_width=512)
            ),  # 4.1: after every third layer
            answer=ConfigDict(
                dict(width=512, heads=8, layers=3, mlp_width=1024, probes=8, dropout=0.1)
            ),
        )
    )
    # What the towers start from: a name on the Hugging Face hub, a file, or a folder written by
    # `python -m amuse_jax.pretrained convert`; '': random weights.
    c.checkpoints = ConfigDict(dict(visual='', audio='', text=''))
    # Eq. 7-10 and 4.1, stage one
    c.pretrain = ConfigDict(
        dict(
            epochs=10,
            batch_size=8,  # videos
            segments=10,  # consecutive segments of each video in a step
            learning_rate=1e-3,
            predictor_width=512,
            swap=0.0,  # share of videos that get another one's pictures: the sound has the answer
            # The predictors learn alone first, on the towers' features; 0: not, as in the paper.
            predictor_epochs=0,
            predictor_learning_rate=1e-3,
            mix=0.0,  # share of segments whose sound is mixed with another video's
        )
    )
    # 4.1, stage two
    c.train = ConfigDict(
        dict(
            # First epochs, in which the adapters stay closed: the towers run once per video.
            head_epochs=0,
            epochs=20,
            batch_size=8,  # videos
            # With open adapters: parts of a batch that a step takes one after the other. Memory
            # falls, and nothing else changes but what dropout draws.
            parts=1,
            questions=5,  # per video in a step
            # With open adapters: questions per video and epoch, drawn anew; 0: all of them.
            open_questions=0,
            learning_rate=1e-4,
            head_learning_rate=1e-4,  # in the head epochs; after a warm-up it falls along a cosine
            head_warmup_epochs=0,
            head_final_share=1.0,  # of head_learning_rate, at the end of the head epochs
            halve_every=5,  # epochs
            # Changes to the videos of an epoch under which the answers stay true: the share of
            # them mirrored left to right, with their questions and answers; the most dB by which
            # they get louder or softer; the share shifted in time, where no question asks about
            # order. Frozen towers' tokens are stored: no gain then, no mirror with open adapters.
            mirror=0.0,
            gain_db=0.0,
            time_shift=0.0,
            trainable='adapters|text|answer',  # regular expression over parameter paths
            encoded_dtype='float32',  # of the frozen towers' stored tokens; float16 halves them
            towers_from='',  # 'sources': start the towers from the pretrained source encoder
        )
    )
    # Of both training stages; none of it changes what they learn.
    c.loop = ConfigDict(
        dict(
            log_steps=10,  # steps per line of metrics
            checkpoint_seconds=300.0,  # between checkpoints; each phase's end has one anyway
            keep=2,  # newest checkpoints
            # Of each layer for its gradient: 'everything', 'products' (with weights; the rest is
            # computed again) or 'inputs': time against memory.
            kept='products',
            max_refused=20,  # steps whose loss or gradient is not finite; more stop the run
            # Longest wait for a batch, a step or a checkpoint; then the run ends and says where it
            # was stuck. 0: any.
            stuck_seconds=1800.0,
            optimization_level=3,  # of XLA for CPUs; a run of minutes gains by less
        )
    )
    # How many devices share what (training/sharding.py); -1: all that are left. The product is the
    # number of devices. None of it changes what is learned.
    c.mesh = ConfigDict(
        dict(
            data=-1,  # the videos of a batch
            fsdp=1,  # the videos too, and the parameters with their optimiser state
            tensor=1,  # the hidden layers of the MLPs
        )
    )
    c.evaluate = ConfigDict(
        dict(
            batch_size=8,
            examples=6,
            # Test questions that the trained model knows, in training or validation: 'refuse' more
            # than one in a hundred, or report them 'apart' from the others.
            leaked='refuse',
            # Another data set, whose test questions are asked instead: values that replace those of
            # `data`. root '': the run's own test questions.
            data=ConfigDict(dict(root='', annotations='plain', rephrased='')),
        )
    )
    return c
