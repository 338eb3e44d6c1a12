"""Questions about a performance, with answers read from its score.

`templates.py` and `templates_audio_visual.py` answer the 33 question templates from the facts in
`facts.py`, and `balance.py` selects the questions that are asked.
"""
