"""Training of the models: the stages pretrain and train, and what both share.

loop.py trains through the phases of a job, which jobs.py defines. It uses the compiled steps of
step.py, the state of state.py, the device mesh of sharding.py and the checkpoints of
checkpoints.py. shard_random.py draws the random numbers of a device's videos. metrics.py,
throughput.py, profiling.py and watchdog.py observe the run; stored.py computes arrays once for all
records, and token_cache.py keeps them where a step finds them.
"""
