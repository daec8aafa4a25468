"""A deterministic sample of the input: realistic in shape, messy where real input is."""
