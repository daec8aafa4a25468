"""The asset graph: one asset in each module, with its checks and what its materialisation shows.

A check is evaluated within the asset's own step, one event for a whole range of days. A blocking check that
fails fails the step before the days count as materialised: neither the same run nor a backfill's next run
goes on with them. The verdicts themselves are in `checks/`.
"""

import warnings

import dagster as dg

# Backfill policies carry Dagster's beta mark; this project is built on them and pins Dagster.
warnings.filterwarnings("ignore", "Parameter `backfill_policy`", dg.BetaWarning)
