"""Faults on purpose: processes killed, databases stopped, networks stalled, two of everything at once.

Two forms of the same tests: a short one among all other tests, a long one by `make chaos`, which keeps a
record and writes docs/promises.md from it. Every choice follows from one seed.
"""

import pytest

# What tests share asserts as well, and its failures are to show their values.
pytest.register_assert_rewrite(
    *(f"{__name__}.{module}" for module in ("fingerprint", "fleet", "invariants", "run_process"))
)
