"""The sound of a performance.

`sound.py` renders a score to stems, `timbres.py` describes the timbre of each instrument, and
`voice.py` synthesizes the voice-over.
"""
