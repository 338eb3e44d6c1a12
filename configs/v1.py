"""MUSIC-AVQA v1 at the paper's size: Tables 2 and 4.

    python -m amuse_jax.main --config=configs/v1.py                       # lists what is needed
    python -m amuse_jax.music_avqa check --root=DIR --annotations=v1
    python -m amuse_jax.main --config=configs/v1.py --config.data.root=DIR --config.rois.weights=F
    python -m amuse_jax.main --config=configs/v1.py --stages=summary      # needs no data

Needs: the videos (48 GB) and annotations in DIR, see docs/data.md, and 93 GB of disk for the run.
MUSIC-AVQA has no boxes, so F is the .pt file of a YOLOv8 detector that was trained elsewhere, such
as ultralytics' yolov8n-oiv7.pt, which knows instruments; with a yolov8s set
--config.rois.feature_size=896. The sounds are separated by the package uss (pip install '.[uss]';
it downloads its weights), or tagged by HTS-AT's AudioSet checkpoint (--config.sources.stems=tags
--config.sources.weights=HTSAT_AudioSet_Saved_1.ckpt).

The towers' checkpoints are downloaded from the Hugging Face hub when the run starts. Without a
network name files (and a file for model.text.tokenizer), or folders that `python -m
amuse_jax.pretrained convert` wrote. --config.checkpoints.visual='' trains that tower from random
weights in pretraining; Amuse must then take its towers from there
(--config.train.towers_from=sources), because a frozen tower must not stay random.

Time and memory of training, all estimated; this config has never run on the videos. The estimates
count 20 epochs of 9,288 videos with five questions each (docs/speed.md says how).

  TPU v5e 4x4     30 minutes, and 11 for pretraining; 11.1 GB per chip. With batch_size=256, parts=4
                  and remat_policy=inputs.
  TPU v5e 16x16   2.2 minutes, and 1 for pretraining; 5.4 GB per chip. With batch_size=256 and
                  remat_policy=inputs.
  one H100        0.83 hours: 23,220 steps of 128 ms; 15.6 GB of temporary memory.
  two CPU cores   out of reach: 13.7 s per question and epoch, as measured on an AMD EPYC (Zen 4),
                  are 101 days for 31,927 questions.

Expected result: the paper reports 83.52 % of all test questions (Table 2). The most frequent answer
to each template reaches 51 %. This project has not reproduced the paper's number.

The paper's results are means of three runs (4.2): --config.seed=0, 1 and 2. With
--config.data.annotations=v1-by-video no test video is seen in training; with
--config.data.rephrased=DIR_OF_R the test questions of MUSIC-AVQA-R are prepared as well.

Sources of the values, which are set in amuse_jax/config.py. "Ours": the paper does not say.

  section      values                                             source
  data         10 segments of 6 s                                 3.2: "6-second intervals in a
                                                                  60-second clip"; T, t of Eq. 4
               192 px                                             ours: Swin-V2-L's published size
               annotations: v1                                    4.1: "standard splits"; see below
  audio        32 kHz, 1024, 320, 64 bands, 50-14000 Hz           HTS-AT's released configuration
  rhythm       6 s, 25 % of the whole audio's tempo               3.2, Eq. 4-6
  sources      universal source separation, 22 instruments        3.2; windows, thresholds: ours
  rois         YOLOv8                                             3.3; 640 px, 0.25, 0.7: its
                                                                  defaults; 12 regions: ours
  model        Swin-V2-L and HTS-AT, their published sizes        4.1
               adapters after every third of 18 layers: 6 rounds  4.1; their widths: ours
               text: BERT base                                    ours
               answer: every value                                ours
               bfloat16                                           ours
  checkpoints  Swin-V2-L: timm's, trained on ImageNet-22k         ours; 4.1 names no weights
               HTS-AT: the audio half of LAION's CLAP             ours; see below
               text: BERT base, uncased                           ours, as the tower and tokenizer
  pretrain     Adam, 1e-3                                         4.1; epochs, batch size: ours
               half an epoch of warm-up, gradients up to norm 1,
               the epoch with the best validation is kept         ours
  train        Adam, 1e-4, halved every 5 epochs                  4.1; epochs, batch size: ours
               half an epoch of warm-up, gradients up to norm 1   ours

CLAP trained its HTS-AT on sound of 48 kHz, with the same 64 bands and 100 frames per second. The
authors of HTS-AT trained theirs on AudioSet at 32 kHz, as the sound is prepared here, but no hub
has that file. If you have it, use it: --config.checkpoints.audio=HTSAT_AudioSet_Saved_1.ckpt.

The paper counts 45,867 questions, as the first release of the data set does (`v1-json`). The
authors of the data set have since corrected it. Published results are on the correction (`v1`,
9,129 test questions) or on the first release (9,185, of which 55 pairs contradict each other).
"""

from amuse_jax.config import default_config, parse_without


def get_config(argument: str = ''):
    c = default_config()
    c.name = 'v1'
    c.without = parse_without(argument)
    c.data.annotations = 'v1'
    c.model.dtype = 'bfloat16'
    c.loop.remat_policy = 'attention'  # an H100 then plans 15.6 GB of temporary memory
    c.checkpoints.update(
        visual='timm/swinv2_large_window12_192.ms_in22k',
        audio='laion/clap-htsat-unfused',
        text='google-bert/bert-base-uncased',
    )
    return c
