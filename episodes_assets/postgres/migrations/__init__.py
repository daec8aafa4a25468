"""Versioned schema changes, one folder for each database, run by Alembic."""
