"""Questions about any video file.

`loading` reads a trained model from where it was saved, `model` watches videos, `video` answers
questions about one, `answer` is what comes out, and `familiar` tells which questions the model has
met in training. `exported` writes a model to one folder and reads it, `card` describes it, `hub`
downloads it, and `program` makes programs of it that run without this package.
"""
