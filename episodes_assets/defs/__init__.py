"""All that Dagster loads: assets with their checks, jobs, schedules, sensors, resources and storage.

Thin around the other packages, which never load Dagster. What automation decides is in `decisions`, as pure
functions. By default the daily schedule is off until somebody switches it on; the sensors and the
nightly deleting of old log rows, profiles and alerts are on, and do nothing where there is nothing to do.
"""
