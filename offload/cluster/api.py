"""Requests to the API server: one connection pool, time-outs, a rate, and errors in our words."""

import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3
import yaml
from kubernetes.client import ApiClient, Configuration
from kubernetes.client.exceptions import ApiException
from kubernetes.config import (
    ConfigException,
    incluster_config,
    kube_config,
    load_incluster_config,
    load_kube_config,
)

from offload.cluster.nested import parse
from offload.errors import (
    AgentRunGoneError,
    ClusterForbiddenError,
    ClusterUnavailableError,
    ConfigError,
    OffloadError,
    StatusConflictError,
    StatusRefusedError,
    shorten,
)

Object = dict[str, Any]

CONNECT_SECONDS = 5.0
READ_SECONDS = 15.0
LONGEST_ASKED_SECONDS = 30.0
"""The most that a `Retry-After` is believed."""
SAID_FIRST, SAID_LAST = 200, 800
SAID = SAID_FIRST + SAID_LAST
"""Characters kept of what a refusal says: it can quote the whole object, with the cause at its end."""
POOL_SIZE = 16
"""Connections kept beside those of the watches."""


class TooOldError(ClusterUnavailableError):
    """The API server no longer has the revision, the list page or the version that was asked for."""


class AskedToWaitError(ClusterUnavailableError):
    """The API server says when to come back (`retry_after`)."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request; as text, what error messages name it by."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Object | None = None
    content_type: str = ""

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class RateLimit:
    """At most so many requests a second, with a tenth of a second's worth at once."""

    def __init__(self, per_second: float) -> None:
        self._interval = 1 / per_second
        self._slack = 0.1
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        with self._lock:
            now = time.monotonic()
            turn = max(self._next, now - self._slack)
            self._next = turn + self._interval
        if turn > now:
            time.sleep(turn - now)


class Api:
    """The JSON side of the API server."""

    def __init__(self, configuration: Configuration, *, requests_per_second: float, watches: int) -> None:
        """Keep room in the pool for so many `watches`."""
        # Retries are decided by who knows what was asked; urllib3's own would hide outages.
        configuration.retries = False
        configuration.socket_options = _KEEPALIVE
        configuration.connection_pool_maxsize = POOL_SIZE + watches
        self._client = ApiClient(configuration)
        self._host = configuration.host
        self._rate = RateLimit(requests_per_second)
        self._resume_at = 0.0

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Object:
        call = Call("GET", path, query or {})
        try:
            return self._json(call)
        except ClusterUnavailableError as error:
            # A kept connection that the server closes as we send is no outage.
            if not isinstance(error.__cause__, urllib3.exceptions.ProtocolError):
                raise
            return self._json(call)

    def post(self, path: str, body: Object) -> Object:
        return self._json(Call("POST", path, body=body, content_type="application/json"))

    def merge_patch(self, path: str, query: Mapping[str, str], body: Object) -> Object:
        return self._json(Call("PATCH", path, query, body, "application/merge-patch+json"))

    def stream(self, path: str, query: Mapping[str, str], *, silence: float) -> urllib3.HTTPResponse:
        """Open an answer that is read as it comes; `silence` is for how many seconds it may say nothing.

        The caller closes it, and translates what reading it raises by `lost`.
        """
        response = self._send(Call("GET", path, query))
        # Only an answer that has begun may be silent for so long. At `Connection: close` the connection has
        # let go of the socket, which the answer still reads, and urllib3 has no public word for it.
        kept = response.connection and response.connection.sock
        if read_from := kept or getattr(getattr(response, "_sock_shutdown", None), "__self__", None):
            with suppress(OSError):  # it has ended
                read_from.settimeout(silence)
        return response

    def lost(self, what: str, error: Exception) -> ClusterUnavailableError:
        """What a failed connection means; after a silence no other kept connection is trusted."""
        if isinstance(error, urllib3.exceptions.TimeoutError):
            self._client.rest_client.pool_manager.clear()
        return ClusterUnavailableError(f"{what}: {' '.join(str(error).split())}")

    def close(self) -> None:
        self._client.close()  # type: ignore[no-untyped-call] # the client has no annotations here
        self._client.rest_client.close()

    def _json(self, call: Call) -> Object:
        answer = _parse(self._read(self._send(call), call))
        if answer is None:
            raise ClusterUnavailableError(f"{call}: the answer is not JSON")
        return answer

    def _send(self, call: Call) -> urllib3.HTTPResponse:
        if (rest := self._resume_at - time.monotonic()) > 0:
            raise AskedToWaitError(f"{call}: not sent, as the API server asked to wait", retry_after=rest)
        self._rate.wait()
        url = f"{self._host}{call.path}" + (f"?{urlencode(call.query)}" if call.query else "")
        headers = {"Accept": "application/json", "User-Agent": "offload"}
        if call.content_type:
            headers["Content-Type"] = call.content_type
        try:
            # This may read a rotated token or run a credential plug-in.
            self._client.update_params_for_auth(
                headers, [], ["BearerToken"], call.path, call.method, call.body
            )
            answer = self._client.call_api(
                call.method, url, headers, call.body, _request_timeout=(CONNECT_SECONDS, READ_SECONDS)
            )
        except (urllib3.exceptions.HTTPError, ApiException, ConfigException, OSError) as error:
            raise self.lost(str(call), error) from error
        response: urllib3.HTTPResponse = answer.response
        if response.status not in (200, 201, 202):
            text = self._read(response, call)
            refused = refusal(response.status, str(call), text, response.headers.get("Retry-After"))
            if isinstance(refused, AskedToWaitError) and response.status in {429, 503}:
                # It asks this identity, so all of this process.
                self._resume_at = time.monotonic() + refused.retry_after
            raise refused
        return response

    def _read(self, response: urllib3.HTTPResponse, call: Call) -> bytes:
        try:
            return response.data
        except (urllib3.exceptions.HTTPError, OSError) as error:
            response.close()
            raise self.lost(str(call), error) from error


def configuration(kubeconfig: str | None) -> Configuration:
    """From the file at `kubeconfig`, else from the pod this runs in, else the usual kubeconfig.

    Raises:
        ConfigError: none of them is usable.
    """
    found = Configuration()
    try:
        token_file = _load(found, kubeconfig)
    except (ConfigException, OSError, yaml.YAMLError, TypeError, AttributeError) as error:
        where = kubeconfig or "the pod's service account and the usual kubeconfig"
        raise ConfigError(f"no usable Kubernetes configuration in {where}: {error}") from error
    if token_file:
        # Read for each request: it is replaced before it expires. The client's own hook keeps a kubeconfig's
        # token for good, and a Pod's for a minute.
        found.refresh_api_key_hook = lambda of: _take_token(of, token_file)  # type: ignore[assignment] # no annotations
    return found


def _load(found: Configuration, kubeconfig: str | None) -> Path | None:
    """Fill `found`; answers the file that holds the token, where one does."""
    if not kubeconfig:
        with suppress(ConfigException):
            load_incluster_config(found)  # type: ignore[no-untyped-call] # no annotations
            return Path(incluster_config.SERVICE_TOKEN_FILENAME)
    load_kube_config(kubeconfig, client_configuration=found)  # type: ignore[no-untyped-call] # no annotations
    paths = kubeconfig or kube_config.KUBE_CONFIG_DEFAULT_LOCATION
    config: Any = kube_config.KubeConfigMerger(paths).config  # type: ignore[no-untyped-call] # no annotations
    context = config["contexts"].get_with_name(config["current-context"])["context"]
    named = config["users"].get_with_name(context.safe_get("user"), safe=True)
    if not named:
        return None
    plug_in = named["user"].safe_get("exec")
    if plug_in and not found.api_key and not found.cert_file:
        # The client logs why, goes on without credentials, and never asks again.
        raise ConfigException(
            f"the credential plug-in {plug_in.get('command')} gave no credentials; the log has why"
        )
    token_file = named["user"].safe_get("tokenFile")
    return Path(named.path).absolute().parent / token_file if token_file else None


def _take_token(configuration: Configuration, file: Path) -> None:
    configuration.api_key["BearerToken"] = f"Bearer {file.read_text().strip()}"


def refusal(code: int, what: str, text: bytes, retry_after: str | None = None) -> OffloadError:
    """The error that an answer other than success stands for."""
    status = _parse(text) or {}
    details = status.get("details") or {}
    said = status.get("message") or shorten(text.decode(errors="replace"))
    message = f"{what}: {code} {said if len(said) <= SAID else f'{said[:SAID_FIRST]} … {said[-SAID_LAST:]}'}"
    match code:
        # Only a missing object is named; a missing kind is the server's "page not found".
        case 404 if details.get("name"):
            return AgentRunGoneError(message)
        case 409:
            return StatusConflictError(message)
        case 301 | 410:
            return TooOldError(message)
        case 401 | 403:
            return ClusterForbiddenError(message + _REFUSED_WHY.get(code, ""))
        case 404 | 408 | 429:
            pass
        case _ if 400 <= code < 500:  # noqa: PLR2004 - client errors
            return StatusRefusedError(message)
    asked = retry_after if retry_after and retry_after.isdigit() else details.get("retryAfterSeconds")
    seconds = min(float(asked or 0), LONGEST_ASKED_SECONDS)
    return AskedToWaitError(message, retry_after=seconds) if seconds else ClusterUnavailableError(message)


_REFUSED_WHY = {401: ": the credentials are expired, withdrawn, or not of this cluster"}


def _parse(text: bytes) -> Object | None:
    try:
        found = parse(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _keepalive() -> list[tuple[int, int, int]]:
    """Socket options by which a dead peer is noticed after 30 s of silence, where the platform has them."""
    wanted = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
    options = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    return options + [
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in wanted.items()
        if hasattr(socket, name)
    ]


_KEEPALIVE = _keepalive()
