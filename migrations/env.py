"""Alembic's entry: runs the revisions on the connection or for the dialect that `migrate` hands over."""

from alembic import context

from offload.index.schema import metadata

attributes = context.config.attributes

if context.is_offline_mode():
    context.configure(dialect_name=attributes["dialect"], target_metadata=metadata, literal_binds=True)
else:
    context.configure(connection=attributes["connection"], target_metadata=metadata, render_as_batch=True)

with context.begin_transaction():
    context.run_migrations()
