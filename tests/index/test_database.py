"""Connections and transactions.

- an exception rolls back; many writers at once all get their turn; a reader sees what is committed
- who freezes in a transaction loses it, and holds up others for some seconds at most
- times come back aware and in UTC, whatever zone they came in or the database is in; a naive one is refused
- a statement that is its own transaction writes and knows the database's time
- failures leave as IndexUnavailableError with their cause: no server, a connection that ends inside a
  transaction, no tables, no free connection; a value that is refused is no such failure
- a PostgreSQL that takes no writes is an index out of reach, until it does; a URL may ask for another one
- a URL that is not ours is refused without showing its password, and so is an SQLite that is too old
- several hosts are written as the refusal of several in one place says
- waiting for dirty runs ends at a commit, on PostgreSQL also at another process's, and in time; soon where a
  wake-up can be missed; a server that falls silent holds no waiter up
- SQLite: every commit is on disk before it is acknowledged; many may open a new file at once
"""

import sqlite3
import string
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from offload.errors import ConfigError, IndexUnavailableError
from offload.index import Index, clock, connecting, publishing, runs, schema, wakeups
from tests.programs import Wire


def test_an_exception_rolls_back(given: Any) -> None:
    run = given.run()

    def touch_and_fail() -> None:
        with given.index.begin() as tx:
            publishing.touch(tx, run.uid)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        touch_and_fail()
    assert given.get_run(run.uid) == run


def test_writers_at_once_all_get_their_turn(given: Any, url: str) -> None:
    run = given.run()
    other = Index.connect(url)

    def touch(number: int) -> None:
        with (given.index, other)[number % 2].begin() as tx:
            publishing.touch(tx, run.uid)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(touch, range(80)))
    other.close()
    assert given.get_run(run.uid).revision == 80


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_process_that_froze_in_its_transaction_holds_nobody_up_for_long(given: Any, url: str) -> None:
    run = given.run()
    frozen = Index.connect(url)

    def freeze() -> None:
        with frozen.begin() as tx:
            publishing.touch(tx, run.uid)
            with given.index.begin() as other:  # waits for the lock on the run
                publishing.touch(other, run.uid)

    with pytest.raises(IndexUnavailableError):
        freeze()
    frozen.close()
    assert given.get_run(run.uid).revision == 1


def test_a_reader_sees_what_is_committed_and_does_not_wait(given: Any) -> None:
    run = given.run()
    with given.index.begin() as tx:
        publishing.touch(tx, run.uid)
        assert given.get_run(run.uid).revision == 0
    assert given.get_run(run.uid).revision == 1


def test_times_come_back_in_utc(given: Any) -> None:
    east = datetime(2026, 5, 1, 1, 30, 0, 123456, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    earlier = given.run(created_at=east)
    later = given.run(created_at=datetime(2026, 4, 30, 21, tzinfo=UTC))
    assert given.get_run(earlier.uid).created_at == east
    assert given.get_run(earlier.uid).created_at.tzinfo is UTC
    with given.index.read() as tx:
        assert [run.uid for run in runs.page(tx, "agents", limit=5)] == [later.uid, earlier.uid]
        now = clock.now(tx)
        assert now.tzinfo is UTC
        assert abs(now - datetime.now(UTC)) < timedelta(minutes=1)
    with pytest.raises(sa.exc.StatementError, match="aware"):
        given.run(created_at=datetime(2026, 1, 1))  # noqa: DTZ001 - what is to be refused


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("zone", ["America/New_York", "Europe/Berlin"])
def test_the_calendars_first_and_last_time_come_back_whatever_zone_the_database_is_in(
    given: Any, url: str, zone: str
) -> None:
    name = sa.make_url(url).database
    with given.index.begin() as tx:
        tx.exec_driver_sql(f"ALTER DATABASE \"{name}\" SET timezone TO '{zone}'")
    try:
        with closing(Index.connect(url)) as index, index.begin() as tx:
            for second in (datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)):
                assert runs.observe(tx, given.seen(finished_at=second)).finished_at == second
    finally:
        with given.index.begin() as tx:
            tx.exec_driver_sql(f'ALTER DATABASE "{name}" RESET timezone')


def test_a_statement_knows_the_databases_time(given: Any) -> None:
    run = given.run()
    with given.index.begin_single() as tx:
        tx.execute(
            sa.update(schema.runs)
            .where(schema.runs.c.uid == run.uid, schema.runs.c.first_seen_at < clock.moment(sa.literal(60.0)))
            .values(published_at=clock.moment(sa.literal(90.0)))
        )
    with given.index.read() as tx:
        ahead = given.get_run(run.uid).published_at - clock.now(tx)
        assert timedelta(seconds=80) < ahead < timedelta(seconds=90)
        late = sa.select(schema.runs.c.uid).where(schema.runs.c.published_at < clock.moment(sa.literal(80.0)))
        assert tx.scalars(late).all() == []


@pytest.mark.parametrize("transaction", ["begin", "begin_single", "read"])
@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("sqlite:////nowhere/at/all.db", "unable to open database file"),
        ("postgresql://u:secret@127.0.0.1:1/x", "Connection refused"),
    ],
)
def test_an_index_out_of_reach_says_so_and_why(url: str, reason: str, transaction: str) -> None:
    index = Index.connect(url)
    with pytest.raises(IndexUnavailableError) as caught, getattr(index, transaction)() as tx:
        runs.get(tx, "u")
    assert isinstance(caught.value.__cause__, sa.exc.OperationalError)
    assert reason in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.told == "The retention index is out of reach."
    started = time.monotonic()
    index.wait_for_dirty(0.1)
    assert time.monotonic() - started >= 0.1
    index.close()


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_server_that_takes_no_writes_is_out_of_reach_until_it_does(url: str) -> None:
    """As a hot standby is, to which a connection can lead after a switchover."""
    name = sa.make_url(url).database
    with psycopg.connect(url, autocommit=True) as admin, closing(Index.connect(url)) as index:
        admin.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        try:
            with pytest.raises(IndexUnavailableError, match="read-only"), index.read():
                pass
            with closing(Index.connect(f"{url}?target_session_attrs=any")) as reader, reader.read() as tx:
                assert tx.scalar(sa.text("SELECT 1")) == 1
        finally:
            admin.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
        with index.begin() as tx:
            assert runs.mark_deleted(tx, "unknown") is False
        index.wait_for_dirty(0.01)


@pytest.mark.parametrize("transaction", ["begin", "begin_single", "read"])
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_connection_that_ends_inside_a_transaction_says_so(given: Any, url: str, transaction: str) -> None:
    run = given.run()

    def lose_it() -> None:
        with getattr(given.index, transaction)() as tx:
            with psycopg.connect(url, autocommit=True) as other:
                pid = tx.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
                other.execute("SELECT pg_terminate_backend(%s)", [pid])
            runs.get(tx, run.uid)

    with pytest.raises(IndexUnavailableError):
        lose_it()
    assert given.get_run(run.uid) == run


def test_a_database_without_tables_says_so(empty_url: str) -> None:
    index = Index.connect(empty_url)
    with pytest.raises(IndexUnavailableError), index.read() as tx:
        runs.get(tx, "u")
    index.close()


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("phase", ["a\0b", "".join(Random(1).choices(string.printable, k=8000))])
def test_a_value_that_is_refused_is_no_outage(given: Any, phase: str) -> None:
    with pytest.raises(sa.exc.DBAPIError):
        given.run(phase=phase)


@pytest.mark.parametrize(
    "url", ["mysql://user:secret@host/db", "secret", "", "oracle+secret://secret:secret@x/y"]
)
def test_a_url_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="postgresql://") as caught:
        Index.connect(url)
    assert "user" not in str(caught.value)


def test_an_at_sign_in_the_password_is_refused_before_the_driver_takes_half_of_it_for_a_host() -> None:
    with pytest.raises(ConfigError, match="%40") as caught:
        Index.connect("postgresql://user:one@two@host/db")
    assert "two" not in str(caught.value)


@pytest.mark.parametrize("port", ["5432,two:5432", "secret", ""])
def test_a_url_whose_port_is_no_number_is_refused_and_says_how_several_hosts_are_written(port: str) -> None:
    with pytest.raises(ConfigError, match=r"\?host=ONE:5432&host=TWO:5432") as caught:
        Index.connect(f"postgresql://user:secret@one:{port}/db")
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_several_hosts_are_tried_in_turn(postgres_url: str) -> None:
    url = sa.make_url(postgres_url)
    hosts = ("127.0.0.1:1", f"{url.host}:{url.port}")
    several = url.set(host=None, port=None, query={"host": hosts}).render_as_string(hide_password=False)
    with closing(Index.connect(several)) as index, index.read() as tx:
        assert tx.scalar(sa.text("SELECT 1")) == 1


def test_an_sqlite_that_is_too_old_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.34.1")
    with pytest.raises(ConfigError, match=r"SQLite 3\.34\.1; 3\.35"):
        Index.connect(f"sqlite:///{tmp_path}/index.db")


def seconds_of_waiting(index: Index, timeout: float) -> float:
    started = time.monotonic()
    index.wait_for_dirty(timeout)
    return time.monotonic() - started


def use_up_wakeups(index: Index) -> None:
    """Listen, and let pass what was announced before."""
    index.wait_for_dirty(0.01)
    while seconds_of_waiting(index, 0.05) < 0.05:
        pass


@pytest.fixture
def waiting(index: Index, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], float]:
    # It is the wake-up that is to end the waiting.
    monkeypatch.setattr(wakeups, "POLL_SECONDS", 10)

    def wait(action: Callable[[], None]) -> float:
        """How long a waiter waits that `action` is to wake."""
        use_up_wakeups(index)
        timer = threading.Timer(0.1, action)
        timer.start()
        started = time.monotonic()
        index.wait_for_dirty(10)
        timer.join()
        return time.monotonic() - started

    return wait


def test_waiting_ends_when_a_run_becomes_dirty(given: Any, waiting: Any) -> None:
    run = given.run()
    assert waiting(lambda: given.artifact(run.uid, "a")) < 5

    def touch() -> None:
        with given.index.begin() as tx:
            publishing.touch(tx, run.uid)

    assert waiting(touch) < 5


def test_waiting_ends_in_time(index: Index) -> None:
    use_up_wakeups(index)
    assert 0.2 <= seconds_of_waiting(index, 0.2) < 5


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_who_cannot_hear_another_process_looks_often(index: Index) -> None:
    use_up_wakeups(index)
    assert seconds_of_waiting(index, 10) < 5


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_who_can_hear_every_process_waits_long(index: Index) -> None:
    use_up_wakeups(index)
    assert seconds_of_waiting(index, 1) >= 1


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_who_listens_and_hears_nothing_looks_often(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    # As behind a pooler that lends a connection out by transaction: LISTEN is answered, and nothing comes.
    monkeypatch.setattr(wakeups, "CHANNEL", "another")
    use_up_wakeups(index)
    assert seconds_of_waiting(index, 10) < 5


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_commit_of_another_process_ends_the_waiting(given: Any, waiting: Any, url: str) -> None:
    run = given.run()
    other = Index.connect(url)

    def touch() -> None:
        with other.begin() as tx:
            publishing.touch(tx, run.uid)

    assert waiting(touch) < 5
    other.close()


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_lost_connection_is_made_again(given: Any, waiting: Any) -> None:
    run = given.run()
    given.index.wait_for_dirty(0.01)
    with given.index.begin() as tx:
        tx.execute(
            sa.text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )
        )
    assert waiting(lambda: given.artifact(run.uid, "a")) < 5


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("asked", ["LISTEN", "NOTIFY"])
def test_a_server_that_falls_silent_holds_no_waiter_up(
    url: str, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "SILENCE_SECONDS", 1.0)
    parsed = sa.make_url(url)
    wire = Wire(parsed.port or 0)
    cutting = threading.Timer(20, wire.cut)  # what else would end it

    def fall_silent(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:  # noqa: ARG001 - the signature is SQLAlchemy's
        if statement.startswith(asked):
            wire.hold_up()

    sa.event.listen(sa.Engine, "before_cursor_execute", fall_silent)
    cutting.start()
    try:
        with closing(
            Index.connect(parsed.set(port=wire.port).render_as_string(hide_password=False))
        ) as index:
            assert seconds_of_waiting(index, 0.2) < 10
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", fall_silent)
        cutting.cancel()
        wire.cut()


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_who_listens_may_wait_longer_than_for_an_answer(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_up_wakeups(index)
    monkeypatch.setattr(connecting, "SILENCE_SECONDS", 0.1)
    assert seconds_of_waiting(index, 1) >= 1


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_sqlite_writes_through_before_it_acknowledges(index: Index) -> None:
    with index.read() as tx:
        settings = {
            name: tx.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 10_000}


def test_many_may_open_a_new_sqlite_file_at_once(tmp_path: Path) -> None:
    threads = 4
    together = threading.Barrier(threads)

    def opened(number: int) -> int:
        index = Index.connect(f"sqlite:///{tmp_path}/{number}.db")
        together.wait()
        with closing(index), index.begin() as tx:
            found: int = tx.exec_driver_sql("SELECT 1").scalar_one()
            return found

    with ThreadPoolExecutor(threads) as pool:
        for number in range(60):  # without waiting, one in ten failed
            assert list(pool.map(opened, [number] * threads)) == [1] * threads


def test_a_pool_without_a_free_connection_says_so(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offload.index.connecting.BUSY_SECONDS", 0.1)
    index = Index.connect(url, connections=1)
    with index.read() as first:
        runs.get(first, "u")
        with pytest.raises(IndexUnavailableError), index.read() as second:
            runs.get(second, "u")
    index.close()


def test_a_file_whose_folder_is_missing_is_not_made(tmp_path: Path) -> None:
    index = Index.connect(f"sqlite:///{tmp_path / 'no' / 'index.db'}")
    with pytest.raises(IndexUnavailableError), index.begin():
        pass
    index.close()
    assert list(tmp_path.iterdir()) == []
