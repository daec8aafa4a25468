"""The asset graph: one asset in each module, thin, saying what happens to a day."""

import warnings

import dagster as dg

# Backfill policies carry Dagster's beta mark; this project is built on them and pins Dagster.
warnings.filterwarnings("ignore", "Parameter `backfill_policy`", dg.BetaWarning)
