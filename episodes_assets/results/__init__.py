"""Every statement on the results database: the tracked state, what is published, and reading both back."""
