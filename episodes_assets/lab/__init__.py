"""Labs: a piece of another environment, taken as a bundle of files and loaded into a home of its own.

Taking reads the lake and, through roles that can only read, the databases `queue` and `results` of the
source; loading and all later commands have nothing of the source. Every statement on the databases is in
`ledger/copies.py` and `results/copies.py`, the commands are `cli/lab.py` and `cli/bundle.py`.
"""
