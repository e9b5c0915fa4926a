"""The schema's revisions: making the tables, checking them, printing the SQL.

Migrations expand first and contract one release later. Each one sets `meta.readable_by` to the oldest
revision whose code can run on its tables, so that an image can be rolled back without its database.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from offload.errors import ConfigError
from offload.index.database import Index, engines_of_url, parse_url, translated
from offload.index.schema import meta


def upgrade(url: str, to: str = "head") -> None:
    """Bring the index at `url` up to revision `to`, in one transaction that excludes other migrations.

    An index that is there already is left as it is. The file of SQLite is made if it does not exist.

    Raises:
        ConfigError: there is no such revision, or the index is at one that this version does not know.
        IndexUnavailableError: the database failed; nothing changed.
    """
    with _migrating(url) as config:
        if not _is_rolled_back(config):
            command.upgrade(config, to)


def downgrade(url: str, to: str) -> None:
    """Take the index at `url` down to revision `to` (`base`: to nothing). Raises as `upgrade` does."""
    with _migrating(url) as config:
        command.downgrade(config, to)


def sql(url_or_dialect: str, to: str = "head") -> str:
    """The SQL that makes an empty database's tables up to revision `to`; nothing is connected."""
    dialect = url_or_dialect
    if ":" in url_or_dialect:
        dialect = parse_url(url_or_dialect).get_backend_name()
    printed = io.StringIO()
    config = _config(printed)
    config.attributes["dialect"] = "postgresql" if dialect == "postgres" else dialect
    with _refusals():
        command.upgrade(config, to, sql=True)
    return printed.getvalue()


def head() -> str:
    """The revision that this version's code is written for."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    if revision is None:
        raise ConfigError("this installation has no migrations")
    return revision


def revision_of(tx: sa.Connection) -> str | None:
    """The revision that the index is at; None where it has no tables."""
    return MigrationContext.configure(tx).get_current_revision()


def check(index: Index) -> None:
    """Refuse an index that this version cannot run on, and say what mends it.

    Raises:
        ConfigError: no tables, an older revision, or a newer one that is not marked as readable by this
        version. IndexUnavailableError: the database failed.
    """
    with index.read() as tx:
        there = revision_of(tx)
        wanted = head()
        if there == wanted:
            return
        if there is None:
            raise ConfigError("the index has no tables: run `offload migrate`")
        scripts = ScriptDirectory.from_config(_config())
        if _known(scripts, there):
            raise ConfigError(
                f"the index is at revision {there}, this version needs {wanted}: run `offload migrate`"
            )
        oldest = tx.execute(sa.select(meta.c.readable_by)).scalar_one()
    if not _known(scripts, oldest):
        raise ConfigError(
            f"the index is at revision {there}, which only newer versions read (this one is {wanted}): "
            "run a newer version"
        )


@contextmanager
def _migrating(url: str) -> Iterator[Config]:
    parsed = parse_url(url)
    engines = engines_of_url(parsed)
    engine = engines.migration_engine(parsed)
    config = _config()
    try:
        with translated(), _refusals(), engine.begin() as tx:
            engines.lock_migrations(tx)
            config.attributes["connection"] = tx
            yield config
    finally:
        engine.dispose()


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except CommandError as error:
        raise ConfigError(f"migrations: {error}") from error


def _is_rolled_back(config: Config) -> bool:
    """Whether the index is at a newer revision than this version knows, and lets it run all the same."""
    tx: sa.Connection = config.attributes["connection"]
    there = revision_of(tx)
    scripts = ScriptDirectory.from_config(config)
    if there is None or _known(scripts, there):
        return False
    return _known(scripts, tx.execute(sa.select(meta.c.readable_by)).scalar_one())


def _known(scripts: ScriptDirectory, revision: str) -> bool:
    return any(script.revision == revision for script in scripts.walk_revisions())


def _config(printed: io.StringIO | None = None) -> Config:
    config = Config(output_buffer=printed) if printed is not None else Config()
    # Alembic reads its options with interpolation: a `%` in the path would be taken for a variable.
    config.set_main_option("script_location", str(_folder()).replace("%", "%%"))
    return config


def _folder() -> Path:
    """`migrations/`: beside this file in an installation, at the top level of a checkout."""
    here = Path(__file__).resolve().parent
    installed = here / "migrations"
    return installed if installed.is_dir() else here.parent.parent / "migrations"
