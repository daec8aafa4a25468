"""Alembic's entry point: upgrade one database over the connection it is handed."""

from alembic import context

connection = context.config.attributes["connection"]
# Dagster keeps Alembic's default table in its own database.
context.configure(
    connection=connection, version_table="episodes_schema_version", version_table_schema="public"
)
with context.begin_transaction():
    context.run_migrations()
