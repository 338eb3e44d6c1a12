"""Training of Amuse on questions (paper 4.1), and prediction with the trained model.

stage.py runs the stage, answering.py builds the model, its batches and its loss, predict.py answers
questions with the best checkpoint, and leakage.py finds test questions that were trained on.
"""
