"""Default settings of every stage.

Section, equation and table numbers in the comments refer to the paper. The files in configs/ start
from `default_config()` and change some of its values.
"""

from ml_collections import ConfigDict

# The parts of the model that the ablations of Table 4 leave out.
PARTS = ('encoder', 'rhythm', 'sources', 'rois')
# The answer heads: this project's, and the paper's.
HEADS = ('ours', 'paper')


def parse_without(argument: str) -> str:
    """Parse the argument after a config file's name, as in `configs/demo.py:without=rois`.

    Returns:
      The part to leave out; '' for none.

    Raises:
      ValueError: the argument is neither empty nor `without=` with one of PARTS.
    """
    if not argument:
        return ''
    name, _, part = argument.partition('=')
    if name != 'without' or part not in PARTS:
        raise ValueError(
            f'config argument {argument!r} is unknown; expected without=' + '|'.join(PARTS)
        )
    return part


def setting(config: ConfigDict, name: str):
    """Return the value or the section of a config that a dotted name stands for."""
    for part in name.split('.'):
        config = config[part]
    return config


def default_config() -> ConfigDict:
    """Return the default settings, at the size of the paper's models."""
    c = ConfigDict()
    c.name = 'base'
    c.seed = 0  # seed of pretraining and training; rendering and the detector have their own
    c.without = ''  # part to leave out (Table 4): encoder, rhythm, sources or rois; '' for none

    # Rendered performances.
    c.synthetic = ConfigDict(
        dict(
            videos=0,  # number of videos; 0 to use the data set in data.root
            seed=0,
            width=320,  # pixels
            height=180,  # pixels
            fps=10,  # frames per second
            questions_per_video=12,
            val_share=0.1,  # share of the videos in the split val
            test_share=0.2,  # share of the videos in the split test
        )
    )

    c.data = ConfigDict(
        dict(
            root='',  # folder with videos/ and annotation files; '' for the render stage's folder
            # Folders of the videos, separated by commas, relative to root or absolute, with all
            # folders in them; '' for the usual places in root (music_avqa/video_files.py).
            videos='',
            # Scheme of the annotation files: plain (avqa-{train,val,test}.json), v1, v1-json,
            # v1-by-video, v2-balance or v2-bias (music_avqa/layout.py).
            annotations='plain',
            # File or folder of MUSIC-AVQA-R's rephrased test questions, relative to root or
            # absolute; '' for none.
            rephrased='',
            segments=10,  # T, segments per video (Sec. 4.1)
            segment_seconds=6.0,  # t, length of a segment (Eq. 4)
            image_size=192,  # S, height and width of the stored frames in pixels
            max_broken_share=0.05,  # largest share of unusable videos, or of malformed rows
            # Limits of time and memory (1e9 bytes) for reading the picture or the sound of one
            # video. A video that exceeds them is set aside. One minute of 640x360 takes 0.7 s and
            # 0.2 GB for both together. One minute of 4K takes about 60 s and 0.2 GB if every frame
            # must be decoded.
            read_seconds=300.0,
            read_gigabytes=4.0,
            shard_videos=64,  # records per file; a killed worker loses at most this many
            workers=0,  # processes for per-video work on CPUs; 0 for one per usable CPU
            # 'K/N' for the K-th of N jobs that share the work of prepare, annotate, rois and
            # features (docs/launches.md); '' for all of it.
            part='',
            # Options of an Apache Beam pipeline that does the per-video work instead, such as
            # '--runner=FlinkRunner --flink_master=HOST:8081'; '' for no pipeline.
            beam='',
        )
    )
    # Log-mel front end of HTS-AT (Chen et al. 2022, released configuration): sample rate in Hz,
    # window and hop in samples.
    c.audio = ConfigDict(
        dict(sample_rate=32000, window=1024, hop=320, mels=64, low_hz=50.0, high_hz=14000.0)
    )

    # Rhythm labels, Eq. 4-6. The authors' released code uses 3 s and 0.3.
    c.rhythm = ConfigDict(
        dict(
            segment_seconds=6.0,
            threshold=0.25,  # smallest labelled change of tempo, as a share of the video's tempo
            sample_rate=22050,  # Hz, librosa's default
            # 'librosa' for its beat tracker; 'tempo' for the same tempo without beats, faster.
            tracker='librosa',
        )
    )
    # Source labels.
    c.sources = ConfigDict(
        dict(
            # 'uss' for Universal Source Separation, 'uss-tags' for its AudioSet classes without
            # any separation, which takes days less, 'tags' for those of HTS-AT
            # (pretrained/tagging.py), 'truth' for the stems of rendered performances.
            stems='uss',
            # Weights of uss (a folder; '' for its own download), or of HTS-AT's tagger (a file or a
            # hub name).
            weights='',
            window_seconds=1.0,  # an instrument is counted once per window in which it sounds
            threshold_db=-40.0,  # level from which a stem sounds, in dB relative to full scale
            threshold_score=0.2,  # score from which a class is heard
        )
    )
    # Regions of interest, YOLOv8 (Sec. 3.3).
    c.rois = ConfigDict(
        dict(
            weights='',  # any YOLOv8 .pt file; '' to train a detector on the data set's boxes
            image_size=640,  # longer side in pixels
            regions=12,  # K, best boxes per segment
            min_score=0.25,  # ultralytics' default
            max_overlap=0.7,  # largest IoU with a better box of a class; ultralytics' default
            feature_size=448,  # channels of the three pooled feature maps together
            detector=ConfigDict(
                dict(
                    width=0.25,  # factor on YOLOv8's channels: 0.25 for YOLOv8n, 0.5 for YOLOv8s
                    depth=0.33,  # factor on YOLOv8's layers: 0.33 for YOLOv8n and YOLOv8s
                    epochs=50,
                    batch_size=16,  # frames
                    frames=0,  # training frames per video; 0 for all frames with known boxes
                    learning_rate=0.1,  # highest learning rate of Muon
                    seed=0,
                )
            ),
        )
    )
    # Features that the compared systems take as inputs (docs/peers.md).
    c.features = ConfigDict(
        dict(
            # Names of arrays in features/catalogue.py, such as ('vggish', 'resnet18'); () for none,
            # and no stage `features`.
            arrays=(),
            # Public weights: a file, a folder, or a name on the hub; '' where none is needed.
            vggish='',
            resnet18='',
            clip='',
            ast='',
        )
    )

    c.model = ConfigDict(
        dict(
            # Dtype of the computation; parameters are float32. With float32, products are float32
            # on accelerators too, not TF32 or bfloat16 (models/platform.py).
            dtype='float32',
            # Swin-V2-L (Sec. 4.1); image_size, patch and window in pixels, pixels and tokens.
            visual=ConfigDict(
                dict(
                    image_size=192,
                    patch=4,
                    width=192,
                    depths=(2, 2, 18, 2),
                    heads=(6, 12, 24, 48),
                    window=12,
                    # Windows, by stage, that the position bias of the checkpoint was trained with,
                    # where it was fine-tuned to larger ones: (12, 12, 12, 6) for
                    # swinv2_large_window12to24_192to384; 0 for those of this model.
                    pretrained_windows=(0, 0, 0, 0),
                )
            ),
            # HTS-AT (Sec. 4.1); image_size is the side of the folded log-mel.
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
            # BERT base.
            text=ConfigDict(
                dict(
                    # Hub name, tokenizer.json or vocab.txt; 'questions' for the data set's words.
                    tokenizer='bert-base-uncased',
                    max_words=32,  # N, tokens per question
                    width=768,
                    depth=12,
                    heads=12,
                    mlp_width=3072,
                    epsilon=1e-12,  # epsilon of the norms; RoBERTa's is 1e-5
                )
            ),
            # Answer head: 'paper' for what Sec. 3.3 and 4.4 say (models/paper_head.py); 'ours' for
            # one that also knows names, counts, places and timelines (models/answer.py).
            head='ours',
            # One round of adapters after every third visual layer (Sec. 4.1).
            adapters=ConfigDict(dict(rounds=6, width=256, heads=4, mlp_width=512)),
            # The paper's head has no layers, probes and dropout.
            answer=ConfigDict(
                dict(width=512, heads=8, layers=3, mlp_width=1024, probes=8, dropout=0.1)
            ),
        )
    )
    # Initial weights of the towers: a name on the Hugging Face hub, a file, a folder written by
    # `save_pretrained` or by `python -m amuse_jax.pretrained convert`; '' for random weights.
    c.checkpoints = ConfigDict(dict(visual='', audio='', text=''))
    # Stage one: the universal encoder (Eq. 7-10, Sec. 4.1).
    c.pretrain = ConfigDict(
        dict(
            # What learns in these epochs: 'all' for the towers and the predictors, 'predictor' for
            # the predictors alone, or any regular expression over parameter paths (Sec. 3.2 trains
            # the encoders, Sec. 4.1 names the predictors).
            trainable='all',
            epochs=10,  # 0 if the predictor epochs are all
            batch_size=8,  # videos
            batch_per_device=0,  # as in train
            segments=10,  # consecutive segments of each video in a step
            learning_rate=1e-3,
            predictor_width=512,
            # Share of videos that get the frames of another video; the labels stay the sound's.
            swap=0.0,
            # Epochs in which the predictors learn alone, on the towers' features; 0 in the paper.
            predictor_epochs=0,
            predictor_learning_rate=1e-3,
            mix=0.0,  # share of segments whose sound is mixed with that of another video
            # The paper trains at a constant rate. Ours: a linear warm-up, and a limit on the norm
            # of the gradient, so that the first steps do not spoil pretrained towers; 0 for none.
            # With few videos it takes up to 100 steps (training/state.py).
            warmup_epochs=0.5,
            clip_norm=1.0,
            # Smallest share of the videos that validate the encoders. If fewer videos have
            # validation questions and no train questions, train videos are held out. Ours.
            val_share=0.05,
        )
    )
    # Stage two: Amuse (Sec. 4.1).
    c.train = ConfigDict(
        dict(
            # Head epochs: first epochs, with closed adapters, in which the towers run once per
            # video.
            head_epochs=0,
            epochs=20,  # epochs with open adapters
            batch_size=8,  # videos
            # Videos for each device that shares a batch (mesh.data times mesh.fsdp). If it is not
            # 0, it sets batch_size when a run starts; the run keeps this size on other devices.
            batch_per_device=0,
            # With open adapters: number of parts of a batch, computed one after the other. More
            # parts take less memory and change only the random numbers of dropout. 0 for as few as
            # fit into the memory of the devices, which the log then tells.
            parts=1,
            questions=5,  # questions per video in a step
            # With open adapters: questions per video and epoch, drawn anew; 0 for all.
            open_questions=0,
            learning_rate=1e-4,
            # Learning rate of the head epochs; after a warm-up it falls along a cosine.
            head_learning_rate=1e-4,
            head_warmup_epochs=0,
            head_final_share=1.0,  # final learning rate of the head epochs / head_learning_rate
            halve_every=5,  # epochs after which the learning rate is halved (Sec. 4.1)
            # Ours, the paper names neither: with open adapters the learning rate first rises for
            # this many epochs, as in pretrain; largest norm of the gradient, in all epochs. 0 for
            # none.
            warmup_epochs=0.5,
            clip_norm=1.0,
            # Augmentations that leave the answers true (data/augment.py): share of mirrored videos;
            # largest gain or attenuation in dB; share of videos shifted in time. Tokens of frozen
            # towers are stored, so then there is no gain, and no mirroring with open adapters.
            mirror=0.0,
            gain_db=0.0,
            time_shift=0.0,
            # What learns: a regular expression over parameter paths, or 'all'.
            trainable='adapters|text|answer',
            # Where the frozen towers' tokens are during training: 'device' (shared out over the
            # mesh), 'host' (memory), 'disk', or 'auto' for the first of them that has room. It does
            # not change the result.
            cache='auto',
            towers_from='',  # 'sources' to start the towers from the pretrained source encoder
        )
    )
    # A system of the comparison in place of Amuse (docs/peers.md). The defaults are those of AVST's
    # released code; configs/peers/ has the recipe of every system, with its sources.
    c.peer = ConfigDict(
        dict(
            name='',  # one of models/peers/catalogue.py, or '' for Amuse
            # Where the outputs of other projects' frozen networks come from: 'features', the arrays
            # of the stage features; 'towers', stand-ins from the run's own pretrained source
            # encoder (training/peers/stand_ins.py).
            inputs='features',
            epochs=80,
            patience=0,  # epochs without a better validation after which training ends; 0: none
            batch_size=64,  # videos
            questions=1,  # questions per video in a step
            learning_rate=1e-4,
            decay_every=8,  # epochs after which the rate falls to a tenth; 0 for a cosine to zero
            weight_decay=0.0,  # AdamW's; 0 for Adam
            # Factor of the cross-entropy that tells the video's own frames from those of others.
            match_weight=0.5,
            trainable='all',  # see parsing.py
            # First epochs of AVST, in which it only learns which sound belongs to which frame;
            # batches are of pairs. Of AVST and LAVISH, the file of the released first stage to
            # start from (AVST's main_grounding_gen_best.pt); '' for random weights.
            grounding=ConfigDict(dict(epochs=0, batch_size=64, learning_rate=1e-4, weights='')),
            # Sizes. Those of the towers are in the section model.
            width=512,  # channels of the head; AVST and DG-SCT take those of their visual maps
            dropout=0.1,
            # Adapters of LAVISH, LAST, DG-SCT and LSTTA.
            adapter=ConfigDict(
                dict(
                    latents=64,  # learned tokens
                    reduction=8,  # factor by which the bottleneck is narrower
                    groups=4,  # groups of its convolutions
                    audio_gate=True,  # whether the audio stream's adapters have a gate
                    base=0.7,  # DG-SCT: added to the weights of channels and positions
                    hidden=512,  # LSTTA: hidden channels
                )
            ),
            # PSTP-Net: parts that the video is cut into; how many of them, and how many patches of
            # each of their frames, are selected; whether an LSTM reads the question, not CLIP.
            selection=ConfigDict(dict(segments=12, top_segments=2, top_patches=25)),
            reads_with_lstm=False,
            # What the released training does to frozen towers by mistake (models/peers/disturb.py).
            disturb=ConfigDict(
                dict(drop_path=0.0, batch_statistics=False, spec_augment=False, mixup=False)
            ),
        )
    )
    # For --stages=peers: by name of the system, the values that replace those of the section peer.
    c.peers = ConfigDict()
    # Settings of both training stages; they do not change the result.
    c.loop = ConfigDict(
        dict(
            log_steps=10,  # steps per line of metrics
            checkpoint_seconds=300.0,  # time between checkpoints; each phase also ends with one
            keep=2,  # number of newest checkpoints to keep
            # Values that each layer keeps for its gradient: 'everything'; 'products', the results
            # of its matrix products; 'attention', these without the MLP's hidden layer; or
            # 'inputs'. Fewer kept values take less memory and more computation.
            remat_policy='products',
            max_refused=20,  # steps that may be refused because loss or gradient is not finite
            # Longest wait for a batch, a step or a checkpoint, after which the run stops and
            # reports where it was stuck; 0 for no limit.
            stuck_seconds=1800.0,
            # Steps whose trace is written into the stage's folder (training/profiling.py): '10:13'
            # for the steps 10, 11 and 12; '' for none.
            profile_steps='',
            optimization_level=3,  # XLA's level on CPUs; short runs are faster with a lower one
        )
    )
    # Number of devices along each axis of the mesh (training/sharding.py); -1 for all that are
    # left. The product is the number of devices. The mesh does not change the result.
    c.mesh = ConfigDict(
        dict(
            data=-1,  # devices that share the videos of a batch
            fsdp=1,  # devices that share the videos, the parameters and the optimiser state
            tensor=1,  # devices that share the hidden layers of the MLPs
        )
    )
    c.evaluate = ConfigDict(
        dict(
            batch_size=8,  # videos
            examples=18,  # pages with an example: one correct and one wrong answer of each type
            # Test questions that are also among the model's train or validation questions: 'refuse'
            # to go on if they are more than 1 %, or report them 'apart' from the others.
            leaked='refuse',
            # Another data set whose test questions are asked instead; its values replace those of
            # `data`. With root '' the run's own test questions are asked.
            data=ConfigDict(dict(root='', videos='', annotations='plain', rephrased='')),
        )
    )
    return c
