"""The input database, which other teams own: reading it exactly, and filling one for trials.

The pipeline itself only reads it. What is accepted of what was read is decided in `planning/`.
"""
