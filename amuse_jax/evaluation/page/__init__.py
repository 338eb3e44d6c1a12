"""The parts of an example page: frames with regions, the timeline, and bars.

evidence.py says what a page shows; canvas.py lays figures out in pixels.
"""
