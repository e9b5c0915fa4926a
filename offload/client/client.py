"""The client's operations, one method each."""

import glob
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar
from urllib.parse import parse_qsl, quote
from uuid import UUID

import httpx
from pydantic import ValidationError

from offload.client import downloads, sources
from offload.client.errors import (
    AnswerError,
    ClientError,
    NameTakenError,
    SourceChangedError,
    SourceSpentError,
    StrangeAnswerError,
)
from offload.client.exchange import Exchange, Notice, Token, json_of
from offload.client.expiry import Expiry, expiry_text
from offload.client.models import Answer, Artifact, Explanation, Page, Run
from offload.domain.digests import format_digest
from offload.domain.limits import PAGE_MOST
from offload.domain.names import check_content_type, check_name, check_type
from offload.domain.times import format_time, parse_time
from offload.errors import InvalidInputError

_Model = TypeVar("_Model", bound=Answer)


class Client:
    """Speaks with one offload server. Safe to share between threads; close it, or use it in `with`.

    `timeout` is the longest silence on a connection in seconds; `retry_for` how many seconds after the
    first failure another attempt may still begin; `notice` is told of each. Proxies and private CAs come
    from the usual environment (HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE).
    """

    def __init__(
        self,
        url: str,
        token: Token = None,
        *,
        timeout: float = 60,
        retry_for: float = 120,
        notice: Notice | None = None,
    ) -> None:
        self._exchange = Exchange(url, token, timeout=timeout, retry_for=retry_for, notice=notice)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._exchange.close()

    def put(  # noqa: PLR0913 - the request's parts, by keyword
        self,
        run: str,
        name: str,
        source: sources.Readable,
        *,
        type: str | None = None,  # noqa: A002 - the word for it everywhere else
        content_type: str | None = None,
        expires: Expiry | None = None,
        uid: str | None = None,
        only_new: bool = False,
        progress: sources.Progress | None = None,
    ) -> Artifact:
        """Store `source` under `name` in the run `NAMESPACE/NAME`; idempotent for the same bytes.

        A path or bytes are sent again after a failure. A stream is, while at most 8 MiB of it were sent.

        Raises:
            InvalidInputError: before anything is sent, where a part breaks a rule.
            NameTakenError: `only_new`, and the name has a current version.
            SourceChangedError: the file is not what it was when the upload began.
            AnswerError: the server refuses; `problem.kind` says why.
            OutOfReachError: the server can't be reached or is not able, also after retries.
        """
        path = f"{_run_path(run)}/artifacts/{_quoted(check_name(name))}"
        params = {
            "type": check_type(type) if type else None,
            "expires": expiry_text(expires) if expires is not None else None,
            "uid": uid,
        }
        with sources.opened(source) as opened:
            headers = {"Content-Type": check_content_type(content_type)} if content_type else {}
            if opened.size is not None:
                headers["Content-Length"] = str(opened.size)
            if opened.sha256 is not None:
                headers["Repr-Digest"] = format_digest(opened.sha256)
            if only_new:
                headers["If-None-Match"] = "*"
            try:
                response = self._send(path, params, headers, opened, progress)
            except NameTakenError as error:
                own = error.may_be_done and self._own_after_lost_reply(run, name, uid, opened.sha256)
                if not own:
                    raise
                return own.model_copy(update={"created": True})
            except AnswerError as error:
                if error.problem.kind == "digest-mismatch" and isinstance(opened, sources.FileSource):
                    raise SourceChangedError(f"{opened.path} changed while it was sent") from error
                raise
        artifact = _parsed(Artifact, json_of(response))
        return artifact.model_copy(update={"created": response.status_code == httpx.codes.CREATED})

    def history(  # noqa: PLR0913 - the filters, by keyword
        self,
        run: str,
        *,
        type: str | None = None,  # noqa: A002 - as the server calls it
        name: str | None = None,
        state: str | None = None,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        order: str = "newest",
        uid: str | None = None,
        page: int = PAGE_MOST,
    ) -> Iterator[Artifact]:
        """Every artifact of the run, newest first, fetched page by page. `name` is a glob."""
        params = {
            "type": type,
            "name": name,
            "state": state,
            "since": _time("since", since),
            "until": _time("until", until),
            "order": order,
            "uid": uid,
            "limit": page,
        }
        return self._listed(f"{_run_path(run)}/artifacts", params, Artifact)

    def run(self, run: str, *, uid: str | None = None) -> Run:
        """The run's resource: counts, bytes, what status lists, and how far publishing is."""
        return _parsed(Run, self._exchange.ask(_run_path(run), {"uid": uid}))

    def runs(
        self,
        namespace: str,
        *,
        agent: str | None = None,
        phase: str | None = None,
        deleted: bool | None = None,
        page: int = PAGE_MOST,
    ) -> Iterator[Run]:
        """The namespace's runs, newest first, deleted ones included unless `deleted` is False."""
        params = {
            "agent": agent,
            "phase": phase,
            "deleted": None if deleted is None else str(deleted).lower(),
            "limit": page,
        }
        return self._listed(f"v1/namespaces/{_segment('namespace', namespace)}/agentruns", params, Run)

    def artifact(self, id: UUID | str) -> Artifact:  # noqa: A002 - as the server calls it
        """One artifact's metadata, also of one whose bytes are gone."""
        return _parsed(Artifact, self._exchange.ask(f"v1/artifacts/{_id('id', id)}", {}))

    def explain(self, run: str, *, uid: str | None = None) -> Explanation:
        """What the run's status shows, and why each of its other current artifacts is not there."""
        return _parsed(Explanation, self._exchange.ask(f"{_run_path(run)}/explanation", {"uid": uid}))

    def download(  # noqa: PLR0913 - which bytes, and where to, by keyword
        self,
        run: str,
        name: str,
        target: str | os.PathLike[str] | BinaryIO,
        *,
        uid: str | None = None,
        version: UUID | str | None = None,
        progress: sources.Progress | None = None,
    ) -> downloads.Content:
        """Write an artifact's bytes to `target`: the current version's, or those of `version` (an id).

        A path is written whole and verified, or not at all; a part that was cut is kept beside it as
        `.NAME.DIGEST.part`, and the next call continues it. Links are followed, and a file that is there
        keeps its mode. A stream gets bytes as they come, and so does the path of a fifo or a device.

        Raises:
            DamagedDownloadError: the bytes are not those that were announced.
            MissingError: there is no such artifact, or its bytes are gone.
            OutOfReachError: the server can't be reached or is not able, also after retries.
        """
        path = f"{_run_path(run)}/artifacts/{_quoted(check_name(name))}"
        params = {"uid": uid, "version": _id("version", version) if version else None}
        place = Path(target) if isinstance(target, str | os.PathLike) else target
        return downloads.fetch(self._exchange, path, params, place, progress)

    def _send(
        self,
        path: str,
        params: dict[str, str | None],
        headers: dict[str, str],
        source: sources.Source,
        progress: sources.Progress | None,
    ) -> httpx.Response:
        waits = source.size is None or source.size > sources.EXPECT_ABOVE
        if waits:
            try:
                return self._exchange.send(
                    "PUT",
                    path,
                    params=params,
                    headers={**headers, "Expect": "100-continue"},
                    body=lambda: sources.body(source, waits=True, progress=progress),
                    spent=lambda: source.spent,
                )
            except AnswerError as error:
                if error.problem.status != httpx.codes.EXPECTATION_FAILED:
                    raise
                if source.spent:  # some proxies refuse what was to be expected once the body is on its way
                    raise SourceSpentError(f"{error}; {SourceSpentError.remedy}") from error
        return self._exchange.send(
            "PUT",
            path,
            params=params,
            headers=headers,
            body=lambda: sources.body(source, waits=False, progress=progress),
            spent=lambda: source.spent,
        )

    def _own_after_lost_reply(
        self, run: str, name: str, uid: str | None, sha256: bytes | None
    ) -> Artifact | None:
        """The name's current version if it has these bytes: an attempt of ours may have stored it unheard."""
        if sha256 is None:
            return None
        try:
            for artifact in self.history(run, name=glob.escape(name), state="stored", uid=uid):
                if artifact.current and artifact.name == name:
                    return artifact if artifact.sha256 == sha256.hex() else None
        except ClientError:  # such as of a token that may only write: what is known is that the name is taken
            return None
        return None

    def _listed(self, path: str, params: dict[str, Any], model: type[_Model]) -> Iterator[_Model]:
        while True:
            page = _parsed(Page, self._exchange.ask(path, params))
            for item in page.items:
                yield _parsed(model, item)
            if not page.next:
                return
            # Of the address only the query is followed: the token never leaves for another host, and a
            # server that is reached by a tunnel need not know its address.
            params = dict(parse_qsl(page.next.partition("?")[2], keep_blank_values=True))


def _run_path(run: str) -> str:
    namespace, slash, name = run.partition("/")
    if not (namespace and slash and name) or "/" in name:
        raise InvalidInputError("run", "must be NAMESPACE/NAME", run)
    return f"v1/namespaces/{_segment('run', namespace)}/agentruns/{_segment('run', name)}"


def _segment(field: str, text: str) -> str:
    try:
        return quote(text, safe="")
    except UnicodeEncodeError as error:
        raise InvalidInputError(field, "must be UTF-8", text) from error


def _quoted(name: str) -> str:
    return quote(name, safe="/")


def _time(field: str, moment: datetime | str | None) -> str | None:
    if moment is None or isinstance(moment, datetime):
        return format_time(moment) if moment else None
    try:
        return format_time(parse_time(moment))
    except ValueError as error:
        rule = "must be a time with its offset such as 2030-01-31T12:00:00Z"
        raise InvalidInputError(field, rule, moment) from error


def _id(field: str, text: UUID | str) -> str:
    try:
        return str(UUID(str(text)))
    except ValueError as error:
        raise InvalidInputError(field, "must be an artifact's id, a UUID", text) from error


def _parsed(model: type[_Model], content: Any) -> _Model:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise StrangeAnswerError(
            f"the server's answer is no {model.__name__}: {where}: {first['msg']}"
        ) from error
