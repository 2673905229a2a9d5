"""How alembic runs our migrations: on the connection that it is handed, tables rebuilt where SQLite cannot alter."""

from alembic import context

from fangxin.data.closures.schema import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
