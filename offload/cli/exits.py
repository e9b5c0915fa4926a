"""Exit codes, as docs/cli.md lists them, and the code that an error means."""

from offload.errors import (
    ArtifactGoneError,
    ConfigError,
    InvalidInputError,
    NotFoundError,
    OffloadError,
    UnavailableError,
)

FAILED = 1
"""The server refused, or the bytes were not what they should be."""

USAGE = 2
"""The command line, the environment or the installation is not usable; nothing was attempted."""

WAITS = 3
"""A sweep or the orphan cleaner would remove implausibly much, and waits for a person."""

NOT_FOUND = 4
"""There is no such run or artifact, or its bytes are gone."""

OUT_OF_REACH = 5
"""A part that is needed did not answer, also after retries; the same command may succeed later."""

INTERRUPTED = 130
"""Ctrl-C: 128 and the number of SIGINT, as shells count."""


def code_of(error: OffloadError) -> int:
    """The exit code that `error` ends the process with."""
    for kinds, code in (
        ((ConfigError, InvalidInputError), USAGE),
        ((NotFoundError, ArtifactGoneError), NOT_FOUND),
        ((UnavailableError,), OUT_OF_REACH),
    ):
        if isinstance(error, kinds):
            return code
    return _code_of_answer(error)


def _code_of_answer(error: OffloadError) -> int:
    from offload.client import errors  # noqa: PLC0415 - httpx is not loaded where nothing went wrong

    if isinstance(error, errors.UnauthorizedError):
        return USAGE
    if isinstance(error, errors.MissingError):
        return NOT_FOUND
    if isinstance(error, errors.OutOfReachError):
        return OUT_OF_REACH
    return FAILED
