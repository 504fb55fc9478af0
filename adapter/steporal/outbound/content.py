"""Decoding of response bodies: content codings and charsets.

The sender chooses both, and so determines what they cost. A coding can expand a thousandfold, so the output is limited
while it is produced. Some of Python's charsets take quadratic time.
"""

from __future__ import annotations

import codecs
import encodings
import pkgutil
import re
import zlib
from encodings.aliases import aliases
from functools import lru_cache
from typing import Literal

_GZIP = zlib.MAX_WBITS | 16
_GZIP_BEGINS = 0x1F
_DEFLATE = zlib.MAX_WBITS
_RAW_DEFLATE = -zlib.MAX_WBITS  # which some servers send as "deflate"

_PACKED_MARGIN = 64 * 1024
"""Bytes by which a packed body may exceed its unpacked size: incompressible data, headers, checksums."""

_CHARSET = re.compile(
    r"utf-?(8|16|32)(-?(le|be|sig))?|(us-)?ascii|latin-?[0-9]+|iso-?8859(-[0-9]+)+|(windows-?|cp|ibm)[0-9]+|koi8-[rtu]|"
    r"shift-?jis(-[a-z0-9]+)*|sjis|ms-kanji|euc-?(jp|kr)|gb(2312|k|18030)|big5(-hkscs)?|tis-620|mac-?[a-z]+"
)

Coding = Literal["identity", "gzip", "deflate"]


class BodyTooLargeError(Exception):
    """A body exceeds its size limit."""


class BodyBrokenError(Exception):
    """A body is not packed as its headers declare."""


def coding_of(header: str) -> Coding | None:
    """Return the coding in ``Content-Encoding``; None if it is another one, or more than one."""
    match [coding for coding in (part.strip().lower() for part in header.split(",")) if coding not in ("", "identity")]:
        case []:
            return "identity"
        case ["gzip" | "x-gzip"]:
            return "gzip"
        case ["deflate"]:
            return "deflate"
        case _:
            return None


class Body:
    """A body that is read chunk by chunk.

    Args:
        coding: The coding of the body.
        max_bytes: The size limit of the unpacked body.
    """

    def __init__(self, coding: Coding, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._packed_bytes = 0
        self._unpacked = bytearray()
        self._coding = coding
        self._unpacking: zlib._Decompress | None = None

    def add(self, chunk: bytes) -> None:
        """Add the next chunk.

        Raises:
            BodyTooLargeError: The body exceeds the limit; no more than that is unpacked.
            BodyBrokenError: The body is not packed as declared.
        """
        if self._coding == "identity":
            self._take(chunk)
            return
        self._packed_bytes += len(chunk)
        if self._packed_bytes > 2 * self._max_bytes + _PACKED_MARGIN:
            raise BodyTooLargeError
        try:
            while chunk:
                chunk = self._unpack(chunk)
        except zlib.error:
            raise BodyBrokenError from None

    def _unpack(self, chunk: bytes) -> bytes:
        """Unpack up to the end of the chunk, or of a member of a ``gzip`` body, which may have several members."""
        if self._unpacking is not None and self._unpacking.eof and (self._coding != "gzip" or chunk[0] != _GZIP_BEGINS):
            return b""  # padding after the end
        if self._unpacking is None or self._unpacking.eof:
            is_raw = self._coding == "deflate" and chunk[0] & 0x0F != zlib.DEFLATED
            self._unpacking = zlib.decompressobj(
                _GZIP if self._coding == "gzip" else _RAW_DEFLATE if is_raw else _DEFLATE
            )
        self._take(self._unpacking.decompress(chunk, self._max_bytes - len(self._unpacked) + 1))
        return self._unpacking.unused_data

    def _take(self, data: bytes) -> None:
        self._unpacked += data
        if len(self._unpacked) > self._max_bytes:
            raise BodyTooLargeError

    def whole(self) -> bytes:
        """Return the complete body.

        Raises:
            BodyBrokenError: The body ended too early.
        """
        if self._unpacking is not None and not self._unpacking.eof:
            raise BodyBrokenError
        return bytes(self._unpacked)


def text_of(body: bytes, content_type: str) -> str:
    """Return a body as text in the charset of its content type; invalid characters are replaced."""
    _, _, charset = content_type.lower().partition("charset=")
    name = charset.partition(";")[0].strip(" \"'").replace("_", "-")
    try:
        return body.decode(codecs.lookup(name).name if _is_charset(name) else "utf-8", errors="replace")
    except (LookupError, ValueError):
        return body.decode(errors="replace")


def _is_charset(name: str) -> bool:
    """Return whether Python has a charset, without a look-up: Python remembers each unknown name for ever."""
    return _CHARSET.fullmatch(name) is not None and encodings.normalize_encoding(name) in _charsets()


@lru_cache(maxsize=1)
def _charsets() -> frozenset[str]:
    return frozenset([*aliases, *(module.name for module in pkgutil.iter_modules(encodings.__path__))])
