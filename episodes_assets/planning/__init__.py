"""Planning a day: which rows of a drop are accepted, which jobs they yield, how fast jobs are worked.

Pure functions of DataFrames and numbers, with equal results on any machine. Nothing here reads a database or
the lake, and nothing here knows Dagster.
"""
