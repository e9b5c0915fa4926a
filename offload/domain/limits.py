"""Limits that are part of the contract, each with its origin."""

STATUS_ENTRIES = 50
"""Entries in status by default, ours and externals together."""

URI_LENGTH = 2048
"""Characters of one string in a status entry."""

NAME_BYTES = 512
"""Bytes of UTF-8 in an artifact's name, so that the object key stays under S3's 1,024."""

SEGMENT_BYTES = 255
"""Bytes between two slashes of a name: stores that keep keys as files refuse more."""

PREFIX_BYTES = 100
"""Bytes of the object key prefix, for the same sum."""

PAGE_DEFAULT = 100
PAGE_MOST = 1000
"""Entries of one page of a list."""

PART_LEAST = 5 * 2**20
"""Smallest part of a multipart upload, save the last (S3 documentation, "Multipart upload limits")."""

PART_COUNT = 10_000
"""Most parts of a multipart upload (same source)."""

DELETE_BATCH = 1000
"""Most keys of one DeleteObjects request (S3 documentation, "DeleteObjects")."""
