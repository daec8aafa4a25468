"""What a day asks for: pure functions of DataFrames, the same on any machine, however often."""
