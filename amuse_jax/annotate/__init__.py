"""Rhythm and source labels of each video's sound, made once and offline (3.2).

stage.py is the annotate stage. rhythm.py and tempo.py make the rhythm labels; sources.py (from
separated stems) and sources_tags.py (from an audio tagger) make the source frequencies. truth.py
evaluates both on rendered performances.
"""
