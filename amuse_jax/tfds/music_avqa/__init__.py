"""MUSIC-AVQA for TFDS: the builder, its description, citations and tags."""
