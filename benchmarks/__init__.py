"""Measurements that stay in the repository: `make bench`.

Each module measures one thing beside what it is compared with, and lets both agree on the same rows before
a time counts. `benchmarks.report` turns the figures into `docs/benchmarks.md`.
"""
