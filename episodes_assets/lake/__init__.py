"""The lake: immutable copies of the input as Delta Lake tables, of which every version stays readable."""
