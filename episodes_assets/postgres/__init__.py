"""Where the four databases are, how they are reached, and by whom; no statement on what they hold.

The one exception is `processes`, which asks Dagster's database which of its processes live.

`provision/` sets the databases up and may use everything here; nothing here uses it, so that connecting
never provisions.
"""
