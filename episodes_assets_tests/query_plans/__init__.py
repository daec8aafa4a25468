"""What each statement on a growing table visits, whatever PostgreSQL's statistics say of the table."""
