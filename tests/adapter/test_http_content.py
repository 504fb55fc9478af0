"""Bodies of answers: what unpacking them costs is bounded, whatever a server sends."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest

from steporal.outbound.content import Body, BodyBrokenError, BodyTooLargeError, Coding, coding_of, text_of

TEXT = b"".join(b"line %d\n" % n for n in range(2_000))


def raw_deflate(data: bytes) -> bytes:
    packing = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packing.compress(data) + packing.flush()


def read(coding: Coding, packed: bytes, max_bytes: int = 1_000_000, chunk: int = 1_000) -> bytes:
    body = Body(coding, max_bytes)
    for at in range(0, len(packed), chunk):
        body.add(packed[at : at + chunk])
    return body.whole()


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        ("identity", TEXT),
        ("gzip", gzip.compress(TEXT)),
        ("gzip", gzip.compress(TEXT[:9_000]) + gzip.compress(TEXT[9_000:])),
        ("gzip", gzip.compress(TEXT) + bytes(512)),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", raw_deflate(TEXT)),
    ],
)
@pytest.mark.parametrize("chunk", [1, 7, 100_000])
def test_a_body_is_unpacked_however_its_chunks_fall(coding: Coding, packed: bytes, chunk: int) -> None:
    assert read(coding, packed, chunk=chunk) == TEXT
    assert read(coding, packed, max_bytes=len(TEXT), chunk=chunk) == TEXT
    with pytest.raises(BodyTooLargeError):
        read(coding, packed, max_bytes=len(TEXT) - 1, chunk=chunk)


@pytest.mark.parametrize("coding", ["identity", "gzip", "deflate"])
def test_a_body_may_be_empty(coding: Coding) -> None:
    assert read(coding, b"") == b""


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        ("gzip", TEXT),
        ("gzip", gzip.compress(TEXT)[:-1]),
        ("gzip", gzip.compress(TEXT)[:200]),
        ("deflate", zlib.compress(TEXT)[:-5]),
        ("deflate", b"\xff" * 100),
    ],
)
def test_a_body_that_is_not_packed_as_it_should_be_is_an_error_and_never_half_a_body(
    coding: Coding, packed: bytes
) -> None:
    with pytest.raises(BodyBrokenError):
        read(coding, packed)


@pytest.mark.parametrize("packed", [gzip.compress(bytes(300_000_000), 1), zlib.compress(bytes(300_000_000), 1)])
def test_no_more_is_unpacked_than_a_body_may_have(packed: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLargeError):
            read("gzip" if packed[0] == 0x1F else "deflate", packed, chunk=len(packed))
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


def test_a_body_without_an_end_that_unpacks_to_nothing_is_left() -> None:
    body, nothing = Body("gzip", 1_000), gzip.compress(b"") * 1_000
    with pytest.raises(BodyTooLargeError):
        for _ in range(100):
            body.add(nothing)


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        ("", "identity"),
        ("identity", "identity"),
        ("gzip", "gzip"),
        ("GZIP", "gzip"),
        ("x-gzip", "gzip"),
        ("identity, gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip, gzip", None),
        ("gzip,deflate", None),
        ("br", None),
        ("zstd", None),
        ("gzip;q=1", None),
    ],
)
def test_one_coding_is_read(header: str, coding: Coding | None) -> None:
    assert coding_of(header) == coding


@pytest.mark.parametrize(
    ("kind", "body", "text"),
    [
        ("text/plain; charset=iso-8859-1", b"\xe9", "é"),
        ('text/plain; charset="UTF-16"', "é".encode("utf-16"), "é"),
        ("text/html;charset=windows-1252; x=y", b"\x80", "€"),
        ("text/html;charset=Shift_JIS", "日本".encode("shift_jis"), "日本"),
        ("text/html;charset=GB18030", "日本".encode("gb18030"), "日本"),
        ("text/plain", "é".encode(), "é"),
        ("", b"\xff", "\ufffd"),
        ("text/plain; charset=nonsense", "é".encode(), "é"),
        ("text/plain; charset=base64", b"YQ==", "YQ=="),
        ("text/plain; charset=unicode_escape", rb"\u0041", r"\u0041"),
    ],
)
def test_a_body_is_read_in_a_charset_of_the_web_else_as_utf_8(kind: str, body: bytes, text: str) -> None:
    assert text_of(body, kind) == text


@pytest.mark.parametrize("charset", ["punycode", "idna", "utf-7", "unicode_escape"])
def test_no_charset_looks_at_a_text_more_than_once(charset: str) -> None:
    """Python's ``punycode`` takes hours for this, longer than tests may."""
    assert text_of(b"a+AGE-\\u0061" * 400_000, f"text/plain; charset={charset}") == "a+AGE-\\u0061" * 400_000
