"""The fleet: jobs handed out through PgQueuer, worked in micro-batches, outcomes written once.

PgQueuer carries messages: it notifies, dequeues, beats hearts, retries and holds. A message names a
chunk of the ledger's jobs; the ledger knows each job, who claims it and how often it was started.
Nothing in here imports Dagster, so a worker starts fast and holds no credential of it.
"""
