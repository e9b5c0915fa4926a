"""Lines for people: what they are told beside the results."""

import os
import sys

import typer


def notice(line: str) -> None:
    """Say something that is no result, as `aside`; an error in a file may take several lines."""
    aside("offload: " + "\n".join(printable(part) for part in line.split("\n")))


def aside(line: str) -> None:
    """Write a line to standard error.

    Where nobody reads it, it is not said: no reason to end a transfer, and exit codes stay.
    """
    try:
        typer.echo(line, err=True)
    except BrokenPipeError:
        # What its buffer still has would fail once more as Python ends, and that is exit code 120.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    except OSError:
        pass  # the next line may be taken: a full disk, a reader that is slow


def url_of(host: str, port: int) -> str:
    """The URL of a server, an IPv6 address in brackets (RFC 3986, section 3.2.2)."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def printable(text: str) -> str:
    """`text` without what could steer a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
