"""Every statement on the results database: the tracked state, what is published, and reading both back.

`verify` compares both with the other databases, and asks Dagster's which days it has recorded as published.

What is right or wrong about the rows is decided in `checks/`; which days are published, in `defs/`.
"""
