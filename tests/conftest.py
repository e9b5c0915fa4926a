"""What every test starts from, and the servers that several rooms share."""

import os
import signal
from collections.abc import Iterator

import pytest

from tests.postgres import PostgresMissingError, running_postgres

# A shell that starts a command in the background makes it ignore Ctrl-C, and its children inherit that; tests
# that press Ctrl-C on a child need it to be heard.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL server's URL; tests make their own databases in it."""
    try:
        with running_postgres() as url:
            yield url
    except PostgresMissingError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
