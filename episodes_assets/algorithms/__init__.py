"""The data-science team's modules: one algorithm in each, found by the registry.

To add one, add a module here with an `ALGORITHM`; `docs/algorithms.md` walks through it. Nothing in
here knows about databases, queues or Dagster.
"""
