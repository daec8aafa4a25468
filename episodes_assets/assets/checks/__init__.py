"""The gates as asset checks: one module for each asset, over the pure verdicts of `episodes_assets.checks`.

They are evaluated within the asset's own step, one event for a whole range of days. A gate that closes
fails the step before the days count as materialised: neither the same run nor a backfill's next run goes
on with them.
"""
