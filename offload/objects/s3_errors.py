"""What botocore, urllib3 and aiohttp raise, as our own errors: by error code and status, never by message."""

from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import ClientError as WireError
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)
from urllib3.exceptions import HTTPError

from offload import metrics
from offload.errors import ObjectMissingError, OffloadError, StoreRefusedError, StoreUnavailableError

_NO_CODE = "404"  # an answer without a body, as to HEAD: its code is the bare status
_MISSING = frozenset({"NoSuchKey", "NoSuchVersion", _NO_CODE})
_FINDING = frozenset({"GetObject", "HeadObject", "HeadBucket", "DeleteObject"})
_PASSES = frozenset(
    {
        "RequestTimeout",  # sent with status 400
        "NoSuchUpload",  # aborted by someone else: starting over helps
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "RequestLimitExceeded",
        "BandwidthLimitExceeded",
        "OperationAborted",
        "ConditionalRequestConflict",
    }
)
_ELSEWHERE = frozenset(
    {"AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect"}
)
_REDIRECTS = frozenset({301, 307})
_PASSING_STATUS = frozenset({408, 409, 425, 429})
_NO_SUCH_OPERATION_STATUS = frozenset({405, 501})
_SUCCESS = range(200, 300)
_SERVER_ERROR, _NOT_IMPLEMENTED = 500, 501


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raise what the store or the way to it does wrong as our own errors; `doing` opens the message."""
    try:
        with metrics.STORE_SECONDS.labels(doing).time():
            yield
    except ClientError as error:
        raise _answered(error, doing) from error
    except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError) as error:
        raise StoreRefusedError(f"{doing}: no usable credentials ({type(error).__name__})") from error
    except ParamValidationError as error:
        raise StoreRefusedError(f"{doing}: {error}") from error
    except (BotoCoreError, HTTPError, WireError, OSError) as error:
        raise StoreUnavailableError(f"{doing}: no answer from the store ({type(error).__name__})") from error


def code_of(error: BaseException | None) -> str:
    """The S3 error code that led to `error`, or an empty text."""
    return _code(error) if isinstance(error, ClientError) else ""


def lacks_operation(error: BaseException | None) -> bool:
    """Whether the store said that it does not know the operation at all."""
    return isinstance(error, ClientError) and (
        _code(error) in {"NotImplemented", "MethodNotAllowed"} or _status(error) in _NO_SUCH_OPERATION_STATUS
    )


def is_elsewhere(error: ClientError) -> bool:
    """Whether the bucket is in another region than the one that was asked."""
    return _status(error) in _REDIRECTS or _code(error) in _ELSEWHERE


def _answered(error: ClientError, doing: str) -> OffloadError:
    code, status = _code(error), _status(error)
    said = f"{doing}: the store answered {status} {code}"
    # S3 names what is missing in the body of a GET's answer; a proxy without a route does not.
    unnamed = code == _NO_CODE and error.operation_name == "GetObject"
    if code in _MISSING and error.operation_name in _FINDING and not unnamed:
        return ObjectMissingError(said)
    passes = status >= _SERVER_ERROR and status != _NOT_IMPLEMENTED
    failed_inside = status in _SUCCESS  # sent before the store knew: an error of the server's too
    if unnamed or passes or failed_inside or status in _PASSING_STATUS or code in _PASSES:
        return StoreUnavailableError(said)
    return StoreRefusedError(said)


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
