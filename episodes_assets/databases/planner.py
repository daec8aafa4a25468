"""Planner settings of our sessions: the work of a statement does not depend on PostgreSQL's statistics.

The statistics of a growing table know nothing of its newest day. The planner then expects one row where
there are 50,000, and for one row all plans cost the same: a nested loop that compares 2,500 million pairs,
or an index of which only the first column fits. In the databases that are ours:

- Joins are hash or merge joins, which read each side once however wrong the estimate is, as long as the
  columns they join by are nearly distinct on one side: ours are keys. Where a loop over a few rows is meant,
  the statement spells it out: a `LATERAL` subquery with `OFFSET 0` is never turned into a join.
- A table is read by an index, so a day is read without the days beside it. A statement names the wanted
  rows on both sides of a join, and one index alone fits what it names. A condition that would let a partial
  index fit as well stands outside, with the rest in a subquery that is `MATERIALIZED` or has `OFFSET 0`.
- So does `max`, or an order with a limit, where another index begins with that column: a walk of that index
  would pass all other days.
- Each execution is planned anew: a generic plan could be kept from when a table was empty.

The tests in `query_plans/` execute every statement on growing tables under statistics of all kinds. Tables
and indexes of the input belong to other teams, so how they are read is left to the planner.
"""

SETTINGS = {
    "enable_nestloop": "off",
    "enable_seqscan": "off",
    "plan_cache_mode": "force_custom_plan",
    # Compiling is decided by estimated cost, which says nothing once a kind of plan is switched off.
    "jit": "off",
}
