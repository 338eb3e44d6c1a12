"""The prepared records as a data set for TensorFlow Datasets (TFDS).

`music_avqa` holds the builder, in the folder layout that TFDS expects.
"""
