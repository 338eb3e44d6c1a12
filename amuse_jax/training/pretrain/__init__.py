"""Pretraining of the universal encoder (paper 3.2).

stage.py runs the stage: it trains the encoders and stores their features. predictors.py trains the
predictors first, while the towers are frozen.
"""
