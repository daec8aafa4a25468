"""Which results may be trusted: pure verdicts over what was counted.

A check takes what was counted of the days of a step and returns one `Verdict` for all of them;
`docs/checks.md` is the table of all checks. There is a module for each place that is checked, and
`consistency`, which compares the databases and the lake with each other. Counting is done by `lake/`,
`ledger/verify.py`, `ledger/progress.py` and `results/verify.py`; reporting a verdict to Dagster by `defs/`.
"""
