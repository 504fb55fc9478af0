"""The body of an answer, as its sender has packed it: content codings and charsets.

Both are the sender's to choose, and so is what they cost. A coding unpacks a thousandfold, so that what it makes is
bounded while it is made; some of Python's charsets take time by the square of the text.
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
"""Bytes by which a packed body may be longer than it is unpacked: what does not compress, headers, checksums."""

_CHARSET = re.compile(
    r"utf-?(8|16|32)(-?(le|be|sig))?|(us-)?ascii|latin-?[0-9]+|iso-?8859(-[0-9]+)+|(windows-?|cp|ibm)[0-9]+|koi8-[rtu]|"
    r"shift-?jis(-[a-z0-9]+)*|sjis|ms-kanji|euc-?(jp|kr)|gb(2312|k|18030)|big5(-hkscs)?|tis-620|mac-?[a-z]+"
)

Coding = Literal["identity", "gzip", "deflate"]


class BodyTooLargeError(Exception):
    """A body has more bytes than it may."""


class BodyBrokenError(Exception):
    """A body is not packed as its headers say."""


def coding_of(header: str) -> Coding | None:
    """Return the coding that ``Content-Encoding`` names; None if it is another one, or more than one."""
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
        coding: How it is packed.
        max_bytes: How much it may be unpacked.
    """

    def __init__(self, coding: Coding, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._packed_bytes = 0
        self._unpacked = bytearray()
        self._coding = coding
        self._unpacking: zlib._Decompress | None = None

    def add(self, chunk: bytes) -> None:
        """Take what comes next.

        Raises:
            BodyTooLargeError: The body is larger than it may be; no more than that is unpacked.
            BodyBrokenError: It is not packed as it should be.
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
        """Unpack to the end of the chunk, or of a member of a ``gzip`` body, which may have several."""
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
        """Return the body at its end.

        Raises:
            BodyBrokenError: It has ended too soon.
        """
        if self._unpacking is not None and not self._unpacking.eof:
            raise BodyBrokenError
        return bytes(self._unpacked)


def text_of(body: bytes, content_type: str) -> str:
    """Return a body as text, in the charset that its type names; what is no such text, or no charset, is replaced."""
    _, _, charset = content_type.lower().partition("charset=")
    name = charset.partition(";")[0].strip(" \"'").replace("_", "-")
    try:
        return body.decode(codecs.lookup(name).name if _is_charset(name) else "utf-8", errors="replace")
    except (LookupError, ValueError):
        return body.decode(errors="replace")


def _is_charset(name: str) -> bool:
    """Whether Python has a charset of a name. It remembers each name that it has not, for ever, so it is not asked."""
    return _CHARSET.fullmatch(name) is not None and encodings.normalize_encoding(name) in _charsets()


@lru_cache(maxsize=1)
def _charsets() -> frozenset[str]:
    return frozenset([*aliases, *(module.name for module in pkgutil.iter_modules(encodings.__path__))])
