"""Amuse: music performance question answering in JAX."""
