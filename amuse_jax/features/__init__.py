"""Features of other networks that the compared systems take as inputs, made once and offline.

stage.py is the stage `features` and imports no PyTorch; it spawns a process for worker.py, which
writes shards (shards.py) with one extractor after another and merges them. catalogue.py lists the
arrays, their shapes, and the files that they need. frames.py reads pictures, fbank.py computes
kaldi's filter banks, log_mel.py HTS-AT's log-mels of DG-SCT, and the networks are in vggish.py,
resnet18.py, clip.py and audio_spectrogram.py (AST); torch_models.py loads their weights.
"""
