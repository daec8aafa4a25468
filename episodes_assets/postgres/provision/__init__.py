"""Setting the databases up, upgrading them and reporting their state: what administrators do.

Commands and Dagster's storage ask for that state before they begin, and set the embedded databases up at
first use; a step asks only whether the input's role is read-only (`grants`). Connecting and admission are in
`postgres/` itself, which never provisions.
"""
