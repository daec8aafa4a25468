"""The asset graph: one asset in each module, with its checks and what its materialisation shows.

A check is evaluated within the asset's own step, one event for a whole range of days. When a blocking check
fails, the step fails before its days count as materialised, so neither the same run nor a later run of the
backfill continues with them. The rules of the checks are in `checks/`.
"""

import warnings

import dagster as dg

# Backfill policies carry Dagster's beta mark; this project is built on them and pins Dagster.
warnings.filterwarnings("ignore", "Parameter `backfill_policy`", dg.BetaWarning)
