"""Setting the databases up, and reporting their state: what administrators do, and no worker or step.

Connecting and admission are in `postgres/` itself, which never provisions.
"""
