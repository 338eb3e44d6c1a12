"""Synthetic performances: videos with questions, rendered instead of recorded.

A score is drawn at random in `score/`, turned into audio in `sound/` and into frames in `picture/`,
and `questions/` reads questions and answers from it. `film.py` writes one video, `stage.py` a whole
data set.
"""
