"""Tables as another program reads them."""

import csv
import io

from amuse_jax.evaluation import tables


def from_csv(text: str) -> dict[str, dict[str, float]]:
    """What tables.as_csv wrote, to two decimals."""
    return {
        row['method']: {column: float(row[column] or 'nan') for column in tables.COLUMNS}
        for row in csv.DictReader(io.StringIO(text))
    }
