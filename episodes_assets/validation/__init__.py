"""What is accepted of the input, and why the rest is refused."""
