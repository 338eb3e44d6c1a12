"""Public checkpoints: reading them, translating their names, and using them.

files.py finds a checkpoint's files, contents.py reads the arrays of one, and prefixes.py removes
what trainers put before their names. key_mapping.py translates the names into parameters by a
table, and bert.py, htsat.py and swin_v2.py hold the tables; towers.py loads the towers of a config.
tagging.py (HTS-AT) and separation.py (Universal Source Separation) run released models on
AudioSet's classes (audioset.py).
"""
