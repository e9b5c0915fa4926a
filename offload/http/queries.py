"""Routes that take no query: who gives one means something by it, and is told that it does nothing here."""

from typing import Annotated

from fastapi import Depends, Query
from pydantic import BaseModel, ConfigDict


class _NoQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")


def _refuse(_query: Annotated[_NoQuery, Query()]) -> None:
    """Any parameter is one too many."""


NO_QUERY = Depends(_refuse)
