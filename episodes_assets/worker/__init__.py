"""The worker's process: its sessions with the queue, its chunks, and the process that computes them.

It holds no SQL (that is in `ledger/`) and never loads Dagster, so a worker starts fast and holds no
credential of Dagster's database.
"""
