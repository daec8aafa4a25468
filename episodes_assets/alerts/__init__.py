"""Alerts to people: which are open by what was observed, and what each channel is to be told of them.

Pure functions of values. What is observed is read in `defs/observed.py` and `dashboard/watch.py`; what was
told, and telling it, is `outbox/`.
"""
