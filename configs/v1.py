"""MUSIC-AVQA v1 at the paper's size: Tables 2 and 4.

    python -m amuse_jax.main --config=configs/v1.py                       # says what is needed
    python -m amuse_jax.music_avqa check --root=DIR --annotations=v1
    python -m amuse_jax.main --config=configs/v1.py --config.data.root=DIR --config.rois.weights=F
    python -m amuse_jax.main --config=configs/v1.py --stages=summary      # needs no data

MUSIC-AVQA has no boxes: F is the .pt file of a YOLOv8 detector that was trained elsewhere, such as
ultralytics' yolov8n-oiv7.pt (Open Images' classes, instruments among them); with
yolov8s, --config.rois.feature_size=896. Its sounds are separated by the package uss
(pip install '.[uss]', which downloads its weights), or tagged by HTS-AT's AudioSet checkpoint
(--config.sources.stems=tags --config.sources.weights=HTSAT_AudioSet_Saved_1.ckpt).

The towers' checkpoints are fetched from the Hugging Face hub when the run starts; without a network
name files instead (and a file for model.text.tokenizer), or folders that `python -m
amuse_jax.pretrained convert` wrote. --config.checkpoints.visual='' trains that tower from nothing:
in pretraining, from which --config.train.towers_from=sources then takes both towers, since a frozen
one must not stay random.

The paper's results are means of three runs (4.2): --config.seed=0, 1 and 2. With
--config.data.annotations=v1-by-video no test video is seen in training; with
--config.data.rephrased=DIR_OF_R the test questions of MUSIC-AVQA-R are prepared as well.

Where the values are from. They stand in base.py; the paper is silent on those called ours.

  section    values                                            source
  data       10 segments of 6 s                                3.2: "6-second intervals in a
                                                               60-second clip"; T, t of Eq. 4
             192 px                                            ours: Swin-V2-L's published size
             annotations: v1                                   4.1: "standard splits"; see below
  audio      32 kHz, 1024, 320, 64 bands, 50-14000 Hz          HTS-AT's released configuration
  rhythm     6 s, 25 % of the whole audio's tempo              3.2, Eq. 4-6
  sources    universal source separation, 22 instruments       3.2; its windows and thresholds: ours
  rois       YOLOv8                                            3.3; 640 px, 0.25, 0.7: its defaults;
                                                               12 regions: ours
  model      Swin-V2-L and HTS-AT, their published sizes       4.1
             adapters after every third of 18 layers: 6 rounds 4.1; their widths: ours
             text: BERT base                                   ours; the paper names no text encoder
             answer: every value                               ours
             bfloat16                                          ours
  check-     Swin-V2-L: timm's, trained on ImageNet-22k        ours; 4.1 names no weights
  points     HTS-AT: the audio half of LAION's CLAP            ours; see below
             text: BERT base, uncased                          ours, as the tower and tokenizer
  pretrain   Adam, 1e-3                                        4.1; epochs and batch size: ours
  train      Adam, 1e-4, halved every 5 epochs                 4.1; epochs and batch size: ours

CLAP's HTS-AT learned from 48 kHz, in the same 64 bands and 100 frames a second. The one that its
authors trained on AudioSet, from the 32 kHz that are prepared here, is on no hub; with the file at
hand, name that: --config.checkpoints.audio=HTSAT_AudioSet_Saved_1.ckpt.

The paper counts 45,867 questions, as the data set's first release does (`v1-json`). The data set's
authors have corrected it since, and published results are on the correction (`v1`, 9,129 test
questions) or on the first release (9,185, of which 55 pairs contradict each other).
"""

from amuse_jax.config import default_config, parse_without


def get_config(argument: str = ''):
    c = default_config()
    c.name = 'v1'
    c.without = parse_without(argument)
    c.data.annotations = 'v1'
    c.model.dtype = 'bfloat16'
    c.checkpoints.update(
        visual='timm/swinv2_large_window12_192.ms_in22k',
        audio='laion/clap-htsat-unfused',
        text='google-bert/bert-base-uncased',
    )
    return c
