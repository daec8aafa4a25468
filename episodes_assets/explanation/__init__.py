"""Why a row of the results is what it is, or is not there: a pure conclusion from what is on record.

`records` has what the databases and the lake say of one episode on one day, `causes` each way in which a row
can be there or not be there, `diagnosis` which of them it is, `facts` the words for what is on record, and
`explaining` the answer. Nothing here reads a database, the lake or a clock; the records are read by
`results/episode.py`, with `ledger/episode.py` and `lake/episode.py`.
"""
