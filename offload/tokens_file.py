"""Tokens from a file of hashed, scoped entries (docs/access.md).

A token is 32 random bytes, so its plain SHA-256 is enough to store: there is nothing to guess that a slow
key derivation would protect.
"""

import fcntl
import hashlib
import hmac
import logging
import os
import re
import secrets
import shutil
import textwrap
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NamedTuple, TextIO

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from offload.config_file import Entry, parse_config, unique
from offload.domain.access import Grant, Permission
from offload.domain.times import format_time, parse_time
from offload.errors import ConfigError

TOKEN_PREFIX = "offload_"  # noqa: S105 - what every token starts with, so that scanners find leaked ones
_TOKEN_BYTES = 32
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LIST_ITEM = re.compile(r"^( *)- ", re.MULTILINE)
_log = logging.getLogger(__name__)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class TokenFile:
    """The grants of the file at `path`, read again when the file changes. Safe to share between threads."""

    def __init__(self, path: Path, *, clock: Callable[[], datetime] = _utc_now) -> None:
        """Read the file. Raises `ConfigError` where it cannot be read; `clock` answers aware times."""
        self._path = path
        self._clock = clock
        self._reading = threading.Lock()
        self._version: _Version | None
        self._version, self._grants = _read(path)
        self._problem: str | None = None

    def grant_for(self, token: str) -> Grant | None:
        """What `token` may do; None where no entry has it or its entry has expired.

        Every entry is compared, in constant time. A new version of the file that cannot be read is logged,
        and the last good one stays in force.
        """
        self._follow()
        hashed = hash_token(token)
        found = None
        for sha256, grant in self._grants:
            if hmac.compare_digest(sha256, hashed):
                found = grant
        if found is None or (found.expires_at is not None and found.expires_at <= self._clock()):
            return None
        return found

    def _follow(self) -> None:
        version = _version(self._path)
        if version == self._version:
            return
        with self._reading:
            if version == self._version:
                return
            try:
                self._version, self._grants = _read(self._path)
            except ConfigError as error:
                # What is broken stays so; what cannot be opened may be by the next request.
                if not isinstance(error.__cause__, OSError):
                    self._version = version
                if error.detail != self._problem:  # one log entry for each problem, not for each request
                    self._problem = error.detail
                    _log.error(
                        "the token file is not usable, the last good one stays in force: %s", error.detail
                    )
            else:
                self._problem = None
                _log.info("read the token file %s again: %d tokens", self._path, len(self._grants))


def hash_token(token: str) -> bytes:
    """The SHA-256 by which the file knows `token`."""
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()


class NewToken(NamedTuple):
    """A token, to be shown once, and the entry that makes it valid, as YAML below `tokens:`."""

    token: str
    entry: str


def create_token(
    name: str,
    *,
    namespaces: Sequence[str],
    permissions: Collection[Permission],
    runs: Sequence[str] = ("*",),
    expires_at: datetime | None = None,
) -> NewToken:
    """Make a token. Raises `ConfigError` where the entry would break a rule of the file."""
    token = TOKEN_PREFIX + secrets.token_urlsafe(_TOKEN_BYTES)
    entry: dict[str, object] = {
        "name": name,
        "sha256": hash_token(token).hex(),
        "namespaces": list(namespaces),
        "runs": list(runs),
        "permissions": [permission.value for permission in Permission if permission in permissions],
    }
    if expires_at is not None:
        entry["expires"] = format_time(expires_at)
    text = yaml.safe_dump([entry], sort_keys=False, allow_unicode=True)
    parse_config(f"tokens:\n{text}", TokensFile, name="token")
    return NewToken(token, text)


def add_entry(path: Path, entry: str) -> None:
    """Put an entry at the end of the token file at `path`, which is made if it is not there.

    The file is replaced in one step; a running server sees the old or the new one. Its mode stays, its owner
    where that is allowed, and a link to it too. Who adds at the same time waits, where the file system has
    locks.

    Raises:
        ConfigError: the file cannot be read or written, or would not be valid with the entry.
    """
    try:
        real = path.resolve()
        with _successor(real) as new:
            text = real.read_text(encoding="utf-8") if real.exists() else "tokens:\n"
            first = _LIST_ITEM.search(text)
            text = text.rstrip("\n") + "\n" + textwrap.indent(entry, first[1] if first else "")
            parse_config(text, TokensFile, name=f"{path} with the new entry")
            new.write(text)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be changed: {error}") from error


@contextmanager
def _successor(file: Path) -> Iterator[TextIO]:
    """An empty file that takes `file`'s place at the end, unless there is an error. One at a time has it."""
    path = file.with_name(file.name + ".new")
    with _locked(path) as new:
        try:
            new.truncate(0)
            yield new
            new.flush()
            if file.exists():
                shutil.copymode(file, path)
                with suppress(PermissionError):
                    shutil.chown(path, file.stat().st_uid, file.stat().st_gid)
            path.replace(file)
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def _locked(path: Path) -> TextIO:
    """Open the file at `path`, made if it is not there, once nobody else has it."""
    while True:
        file = path.open("a", encoding="utf-8")
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(file, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # it was renamed by the one who had it


def _permission(value: object) -> Permission:
    try:
        return Permission(str(value))
    except ValueError as error:
        raise ValueError(f"must be one of {', '.join(Permission)}; got {value!r}") from error


def _sha256(value: object) -> str:
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise ValueError("must be the SHA-256 of a token, as 64 of 0-9 and a-f")
    return value


def _time(value: object) -> datetime:
    return parse_time(str(value))


_Glob = Annotated[str, StringConstraints(min_length=1)]


class TokenEntry(Entry):
    """One token: who has it, and what it may do to which runs until when."""

    name: Annotated[
        str,
        StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"),
        AfterValidator(unique),
    ]
    sha256: Annotated[str, BeforeValidator(_sha256), AfterValidator(unique)]
    namespaces: Annotated[list[_Glob], Field(min_length=1)]
    runs: Annotated[list[_Glob], Field(min_length=1)] = ["*"]  # noqa: RUF012 - pydantic copies it
    permissions: Annotated[list[Annotated[Permission, BeforeValidator(_permission)]], Field(min_length=1)]
    expires: Annotated[datetime | None, BeforeValidator(_time)] = None

    def in_domain(self) -> Grant:
        return Grant(
            self.name, frozenset(self.permissions), tuple(self.namespaces), tuple(self.runs), self.expires
        )


class TokensFile(Entry):
    """The whole file."""

    tokens: list[TokenEntry]


_Version = tuple[int, int, int, int]


def _read(path: Path) -> tuple[_Version, tuple[tuple[bytes, Grant], ...]]:
    try:
        with path.open(encoding="utf-8") as file:
            version = _signature(os.fstat(file.fileno()))
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    entries = parse_config(text, TokensFile, name=str(path)).tokens
    return version, tuple((bytes.fromhex(entry.sha256), entry.in_domain()) for entry in entries)


def _version(path: Path) -> _Version | None:
    try:
        return _signature(path.stat())
    except OSError:
        return None


def _signature(stat: os.stat_result) -> _Version:
    return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino
