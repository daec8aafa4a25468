"""The `episodes` command: one module for each group of subcommands.

Dagster takes up to a second to import, so commands that do not run it must not load it: its users in here
import it where they use it.
"""
