"""The lake: immutable copies of the input as Delta Lake tables, of which every version stays readable.

Which rows of a drop are accepted is decided in `planning/`; how the input is read, in `input/`.
"""
