"""Compressed JSON, which anyone who can write to the namespace may have made."""

from __future__ import annotations

import json
import zlib

from ..types import JSON

MAX_UNPACKED_BYTES = 32 * 1024 * 1024
"""Size limit of decompressed data: a compressed megabyte can hold a gigabyte of blanks."""


def unpack(data: bytes, limit: int = MAX_UNPACKED_BYTES) -> bytes:
    """Return the data that was passed to :func:`zlib.compress`.

    No more than ``limit`` bytes are decompressed.

    Raises:
        ValueError: The data is larger, or was not written by ``zlib.compress``.
    """
    unpacker = zlib.decompressobj()
    try:
        unpacked = unpacker.decompress(data, limit)
    except zlib.error as err:
        raise ValueError(f"compressed data cannot be read: {err}") from None
    if unpacker.unconsumed_tail or not unpacker.eof:
        raise ValueError(f"compressed data is incomplete, or has more than {limit:,} bytes")
    return unpacked


def unpack_json(data: bytes, limit: int = MAX_UNPACKED_BYTES) -> JSON:
    """Return the JSON in compressed data.

    Raises:
        ValueError: The JSON is larger than ``limit``, was not written by ``zlib.compress``, or is not valid.
    """
    try:
        return json.loads(unpack(data, limit))
    except RecursionError:
        raise ValueError("compressed JSON is nested too deep") from None
