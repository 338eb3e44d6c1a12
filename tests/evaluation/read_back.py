"""Reader of the CSV tables that the tests check."""

import csv
import io

from amuse_jax.evaluation import tables


def from_csv(text: str) -> dict[str, dict[str, float]]:
    """Parse the output of tables.as_csv, which has two decimals."""
    return {
        row['method']: {column: float(row[column] or 'nan') for column in tables.COLUMNS}
        for row in csv.DictReader(io.StringIO(text))
    }
