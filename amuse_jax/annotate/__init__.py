"""Labels of each video's sound, made once and offline: rhythm and sources (3.2)."""
