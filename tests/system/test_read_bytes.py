import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from amuse_jax.system import files


def test_json_has_no_nan(tmp_path):
    value = {'a': [1.5, math.nan, (math.inf, 2)], 'b': np.float64('nan'), 'c': {'d': -math.inf}}
    files.write_json(tmp_path / 'a.json', value)
    found = json.loads((tmp_path / 'a.json').read_text(), parse_constant=pytest.fail)
    assert found == {'a': [1.5, None, [None, 2]], 'b': None, 'c': {'d': None}}


def test_a_file_from_outside_is_read_within_limits(tmp_path):
    path = tmp_path / 'a'
    path.write_bytes(b'123')
    assert files.read_bytes(path, 3, 60) == b'123'
    with pytest.raises(OSError, match='it has more than 2 bytes'):
        files.read_bytes(path, 2, 60)
    with pytest.raises(FileNotFoundError):
        files.read_bytes(tmp_path / 'b', 2, 60)
    os.mkfifo(tmp_path / 'pipe')  # nobody writes to it
    for other in (tmp_path, tmp_path / 'pipe', Path('/dev/zero')):
        with pytest.raises(OSError, match='it is a folder, a pipe or a device'):
            files.read_bytes(other, 2, 60)
