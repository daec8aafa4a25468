"""Which results may be trusted: pure verdicts over what was counted, for whoever counts and shows it.

A gate takes what the stores counted of the days of a step and returns one `Verdict` for all of them.
`docs/gates.md` is the table of all gates. `consistency` compares what the databases say of each other, for
`episodes db status`.
"""
