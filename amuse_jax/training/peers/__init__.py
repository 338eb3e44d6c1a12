"""Training of the systems that Amuse is compared with, and prediction with them.

stage.py runs the stage, batches.py makes the batches, answering.py computes loss and answers,
predict.py answers questions with the best checkpoint, and stand_ins.py computes the inputs that the
networks of other projects would give.
"""
