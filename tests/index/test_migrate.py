"""Migrations.

- up makes the tables that the models describe, down leaves nothing; one identity for good
- several at once make them once
- checked: no tables, an older revision, a newer one that this version reads or does not; each names its
remedy - rolled back: an image that is older than a readable index leaves it alone - printed SQL makes the
same tables, without a connection - a revision that is not there, or a database that is away, is an error of
ours - an installation has its migrations inside the package
"""

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from offload.errors import ConfigError, IndexUnavailableError
from offload.index import Index, dialects, identity, migrate
from offload.index.schema import metadata

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def another_url(empty_url: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A second database without tables, of the same engine."""
    if empty_url.startswith("sqlite"):
        return f"sqlite:///{tmp_path / 'another.db'}"
    url: str = request.getfixturevalue("new_database")()
    return url


def engine_of(url: str) -> sa.Engine:
    parsed = sa.make_url(url)
    engines = dialects.engines_for(parsed)
    assert engines is not None
    return engines.migration_engine(parsed)


def described(url: str) -> dict[str, Any]:
    """All that the database says of its tables."""
    engine = engine_of(url)
    inspector = sa.inspect(engine)
    tables = {
        name: {
            "columns": [
                {**column, "type": str(column["type"].compile(engine.dialect))}
                for column in inspector.get_columns(name)
            ],
            "primary key": inspector.get_pk_constraint(name),
            "foreign keys": inspector.get_foreign_keys(name),
            "unique": sorted(inspector.get_unique_constraints(name), key=lambda each: str(each["name"])),
            "checks": sorted(inspector.get_check_constraints(name), key=lambda each: str(each["name"])),
            "indices": sorted(
                (
                    {**index, "dialect_options": {k: str(v) for k, v in index["dialect_options"].items()}}
                    for index in inspector.get_indexes(name)
                ),
                key=lambda each: str(each["name"]),
            ),
        }
        for name in inspector.get_table_names()
        if name != "alembic_version"
    }
    engine.dispose()
    return tables


def set_revision(url: str, revision: str, readable_by: str | None = None) -> None:
    engine = engine_of(url)
    with engine.begin() as tx:
        tx.execute(sa.text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})
        if readable_by is not None:
            tx.execute(sa.text("UPDATE meta SET readable_by = :oldest"), {"oldest": readable_by})
    engine.dispose()


def check(url: str) -> None:
    index = Index.connect(url)
    try:
        migrate.check(index)
    finally:
        index.close()


def identity_of(url: str) -> Any:
    index = Index.connect(url)
    with index.read() as tx:
        there = identity(tx)
    index.close()
    return there


def test_up_makes_what_the_models_describe(empty_url: str, another_url: str) -> None:
    migrate.upgrade(empty_url)
    check(empty_url)
    engine = engine_of(empty_url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()
    engine = engine_of(another_url)
    metadata.create_all(engine)
    engine.dispose()
    assert described(empty_url) == described(another_url)
    assert described(empty_url).keys() == metadata.tables.keys()


def test_a_migration_that_fails_changes_nothing(empty_url: str) -> None:
    engine = engine_of(empty_url)
    with engine.begin() as tx:
        tx.execute(sa.text("CREATE TABLE plans (mine INTEGER)"))
    engine.dispose()
    before = described(empty_url)
    with pytest.raises(IndexUnavailableError):
        migrate.upgrade(empty_url)
    assert described(empty_url) == before


def test_every_constraint_and_index_has_a_name_of_ours(empty_url: str) -> None:
    migrate.upgrade(empty_url)
    for table, parts in described(empty_url).items():
        named = [*parts["foreign keys"], *parts["unique"], *parts["checks"], *parts["indices"]]
        if parts["primary key"]["constrained_columns"]:
            named.append(parts["primary key"])
        for part in named:
            assert str(part["name"]).split("_")[0] in {"pk", "fk", "uq", "ck", "ix"}, (table, part)
            assert table in str(part["name"]), (table, part)


def test_down_leaves_nothing(empty_url: str) -> None:
    migrate.upgrade(empty_url)
    migrate.downgrade(empty_url, "base")
    assert described(empty_url) == {}
    migrate.upgrade(empty_url)
    check(empty_url)


def test_up_again_changes_nothing(empty_url: str) -> None:
    migrate.upgrade(empty_url)
    before = identity_of(empty_url)
    migrate.upgrade(empty_url)
    assert identity_of(empty_url) == before


def test_several_at_once_migrate_once(empty_url: str) -> None:
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: migrate.upgrade(empty_url), range(4)))
    check(empty_url)
    identity_of(empty_url)


def test_an_index_without_tables_is_told_to_migrate(empty_url: str) -> None:
    with pytest.raises(ConfigError, match="no tables: run `offload migrate`"):
        check(empty_url)


def test_an_older_revision_is_told_to_migrate(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    migrate.upgrade(empty_url)
    monkeypatch.setattr(migrate, "head", lambda: "0002")
    with pytest.raises(ConfigError, match="at revision 0001, this version needs 0002: run `offload migrate`"):
        check(empty_url)


def test_a_newer_revision_runs_where_it_is_marked_readable(empty_url: str) -> None:
    migrate.upgrade(empty_url)
    set_revision(empty_url, "0007", readable_by="0001")
    check(empty_url)
    migrate.upgrade(empty_url)
    check(empty_url)


def test_a_newer_revision_that_is_not_readable_is_refused(empty_url: str) -> None:
    migrate.upgrade(empty_url)
    set_revision(empty_url, "0007", readable_by="0005")
    with pytest.raises(ConfigError, match="at revision 0007, which only newer versions read"):
        check(empty_url)
    with pytest.raises(ConfigError, match="0007"):
        migrate.upgrade(empty_url)


def test_printed_sql_makes_the_same_tables(empty_url: str, another_url: str) -> None:
    migrate.upgrade(empty_url)
    printed = migrate.sql(empty_url)
    sqlite = empty_url.startswith("sqlite")
    engine = engine_of(another_url)
    raw = engine.raw_connection()
    if sqlite:
        raw.driver_connection.executescript(printed)  # type: ignore[union-attr]
    else:
        raw.driver_connection.autocommit = True  # type: ignore[union-attr]
        raw.driver_connection.execute(printed)  # type: ignore[union-attr]
    raw.close()
    engine.dispose()
    check(another_url)
    assert described(another_url) == described(empty_url)
    assert migrate.sql("sqlite" if sqlite else "postgresql").splitlines()[0] == printed.splitlines()[0]


def test_a_revision_that_is_not_there_is_refused(empty_url: str) -> None:
    with pytest.raises(ConfigError, match="0099"):
        migrate.upgrade(empty_url, "0099")


def test_a_database_that_is_away_is_said_to_be() -> None:
    with pytest.raises(IndexUnavailableError):
        migrate.upgrade("postgresql://nobody@127.0.0.1:1/x")


def test_an_installation_has_its_migrations_inside(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "offload", tmp_path / "offload")
    shutil.copytree(ROOT / "migrations", tmp_path / "offload" / "index" / "migrations")
    program = (
        "import sys, offload\n"
        "from offload.index import Index, migrate\n"
        "assert offload.__file__.startswith(sys.argv[1])\n"
        "migrate.upgrade(f'sqlite:///{sys.argv[1]}/index.db')\n"
        "migrate.check(Index.connect(f'sqlite:///{sys.argv[1]}/index.db'))\n"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        check=True,
    )
