"""What several tests of the documentation look at."""

from typing import Any

import pytest
from fastapi import FastAPI

from offload.http.app import create_app, document


@pytest.fixture(scope="session")
def openapi() -> dict[str, Any]:
    """The OpenAPI document of the service."""
    app: Any = create_app(_never_opened)
    while not isinstance(app, FastAPI):  # inside its middleware
        app = app._app
    return document(app)


def _never_opened() -> Any:
    raise AssertionError("only its document is asked for")
