"""Episode tracking on Dagster: from a day's catalogue drop to published results."""
