"""The jobs by which a wrong day is corrected in the UI; `episodes correct` does the same."""

import dagster as dg

_REWORK = {"episode_jobs": {"config": {"rework": True}}}

correct_day = dg.define_asset_job(
    "correct_day",
    selection=dg.AssetSelection.all(),
    config={"ops": {"take_input": {"config": {"refresh": True, "reason": ""}}, **_REWORK}},
    description="Take the input of a day anew that was wrong, plan it anew, work all its jobs again, "
    "and publish it. Choose *Open launchpad* beside *Materialize all*, pick the day, say why under `reason`: "
    "without a reason it is refused. Every later day of the history was built on the wrong one: "
    "launch `rework_days` for all of them afterwards.",
)

rework_days = dg.define_asset_job(
    "rework_days",
    selection=dg.AssetSelection.all(),
    config={"ops": _REWORK},
    description="Plan days anew from the drops they have, work all their jobs again, and publish them. "
    "Launched for a range of days, it is one run.",
)
