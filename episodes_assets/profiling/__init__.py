"""Profiles: where a process spends its time, by file and line.

`stacks` is what a profile is and what is shown of it; `engines` takes one of a running process. Neither knows
Dagster or a database: profiles are kept by `ledger/profiles.py`. When one is taken, `worker/profiler.py` and
`defs/profiles.py` decide.
"""
