"""Training of the models: the stages pretrain and train, and what both share.

loop.py trains through the phases of a job. It uses the compiled steps of step.py, the state of
state.py, the device mesh of sharding.py and the checkpoints of checkpoints.py. metrics.py,
throughput.py and watchdog.py observe the run; stored.py computes arrays once for all records.
"""
