"""Alembic's entry: migrates the connection that `Database.migrate` hands over, inside its transaction."""

from alembic import context

from sentinel_core.storage.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
