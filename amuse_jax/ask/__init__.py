"""Questions about any video file.

`loading` reads a trained model from where it was saved, `model` watches a video and answers
questions about it, `answer` is what comes out, and `familiar` tells which questions the model has
met in training.
"""
