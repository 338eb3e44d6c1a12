from amuse_jax.regions import environment

environment.set_up()  # as in every process that imports ultralytics
