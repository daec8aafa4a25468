"""Which results may be trusted: pure verdicts over what was counted.

A check takes what was counted of the days of a step and returns one `Verdict` for all of them;
`docs/checks.md` is the table of all checks. One module for each place that is checked, and `consistency`,
which compares what the databases and the lake say of each other. What is counted is read by the modules
`verify` of `ledger` and `results`; what Dagster is told of a verdict is in `defs/assets/`.
"""
