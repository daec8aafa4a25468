"""Dagster resources: they own the connections, and nothing else."""
