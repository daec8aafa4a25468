"""Every statement on the results database: the tracked state, what is published, and reading both back.

What is right or wrong about the rows is decided in `checks/`; which days are published, in `defs/`.
"""
