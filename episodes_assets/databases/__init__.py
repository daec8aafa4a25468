"""The four databases: where they are, who may do what in them, and how they are set up.

What is stored in them is read and written by `episodes_assets.stores`.
"""
