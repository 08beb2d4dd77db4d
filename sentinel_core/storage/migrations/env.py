"""Alembic's entry: migrates the connection that `Database.migrate` hands over, inside its transaction."""

from alembic import context

from sentinel_core.storage.schema import metadata

if hasattr(context, "config"):  # importing this file by hand, outside a migration, does nothing
    context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
    with context.begin_transaction():
        context.run_migrations()
