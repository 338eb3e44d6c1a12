"""Numbers that keep attention finite, the same in the plain definition and in every kernel."""

import numpy as np

MASKED = float(np.finfo(np.float32).min)  # score of a key that may not be attended to
SMALLEST = 1e-24  # lower bound of a squared length
