"""What runners import: send artifacts, list them, fetch them. Knows nothing of the server's rooms."""

from offload.client.client import Client
from offload.client.downloads import Content
from offload.client.errors import (
    AnswerError,
    BusyError,
    ClientError,
    DamagedDownloadError,
    MissingError,
    NameTakenError,
    OutOfReachError,
    Problem,
    SourceChangedError,
    SourceSpentError,
    StrangeAnswerError,
    UnauthorizedError,
)
from offload.client.expiry import Expiry
from offload.client.models import (
    Artifact,
    Explanation,
    LeftOut,
    LeftOutExternal,
    PublishState,
    Run,
    RunRef,
    StatusEntry,
)

__all__ = [
    "AnswerError",
    "Artifact",
    "BusyError",
    "Client",
    "ClientError",
    "Content",
    "DamagedDownloadError",
    "Expiry",
    "Explanation",
    "LeftOut",
    "LeftOutExternal",
    "MissingError",
    "NameTakenError",
    "OutOfReachError",
    "Problem",
    "PublishState",
    "Run",
    "RunRef",
    "SourceChangedError",
    "SourceSpentError",
    "StatusEntry",
    "StrangeAnswerError",
    "UnauthorizedError",
]
