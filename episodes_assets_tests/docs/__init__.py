"""The documentation: what is written from the code, and whether the rest names what exists."""
