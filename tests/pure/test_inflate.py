"""Content encodings come off, and no bomb goes off."""

from __future__ import annotations

import gzip
import time
import tracemalloc
import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.pure.inflate import inflate
from proxy.words.errors import Unreadable
from tests.corpus import encode
from tests.pure.formats.profile import STEADY

MIB = 1 << 20
TEXT = b"".join(b"line %d of a text\n" % (number * number) for number in range(3000))
CODINGS = ("gzip", "deflate", "br", "zstd")


def raw_deflate(data: bytes) -> bytes:
    codec = zlib.compressobj(wbits=-15)
    return codec.compress(data) + codec.flush()


@settings(STEADY, max_examples=120)
@given(data=st.binary(max_size=3000), codings=st.lists(st.sampled_from((*CODINGS, "identity")), max_size=3))
def test_what_was_encoded_comes_back(data: bytes, codings: list[str]) -> None:
    done = inflate(encode(data, ",".join(codings)), ", ".join(codings), MIB)
    assert done.data == data
    assert not done.truncated


@pytest.mark.parametrize("header", ["", " ", "identity", "Identity", ",", "identity, identity"])
def test_no_encoding_is_no_change(header: str) -> None:
    assert inflate(TEXT, header, MIB).data == TEXT


@pytest.mark.parametrize("header", ["GZIP", " gzip ", "x-gzip", "gzip,", "identity, gzip"])
def test_names_are_read_leniently(header: str) -> None:
    assert inflate(gzip.compress(TEXT), header, MIB).data == TEXT


def test_deflate_may_be_raw() -> None:
    assert inflate(raw_deflate(TEXT), "deflate", MIB).data == TEXT


@pytest.mark.parametrize("coding", CODINGS)
def test_an_empty_body_is_empty_in_every_encoding(coding: str) -> None:
    assert inflate(b"", coding, MIB).data == b""
    assert not inflate(b"", coding, MIB).truncated


def test_several_members_and_frames_are_one_body() -> None:
    members = gzip.compress(TEXT) + b"\0\0\0" + gzip.compress(b"") + gzip.compress(b"end")
    assert inflate(members + b"\0" * 70_000, "gzip", MIB).data == TEXT + b"end"
    frames = zstandard.compress(TEXT) + zstandard.compress(b"") + zstandard.compress(b"end")
    done = inflate(frames, "zstd", MIB)
    assert done.data == TEXT + b"end"
    assert not done.truncated


def test_a_zstd_frame_may_be_streamed_without_its_size() -> None:
    codec = zstandard.ZstdCompressor().compressobj()
    body = codec.compress(TEXT) + codec.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK) + codec.flush()
    assert inflate(body, "zstd", MIB).data == TEXT


ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    **{name: (lambda data, name=name: encode(data, name)) for name in CODINGS},  # type: ignore[misc]
    "raw": raw_deflate,
}


@pytest.mark.parametrize("name", ENCODERS)
def test_a_truncated_input_gives_its_beginning_and_says_so(name: str) -> None:
    text = b"".join(b"%d " % (number**5 % 999_983) for number in range(60_000))
    body = ENCODERS[name](text)
    done = inflate(body[: len(body) * 2 // 3], "deflate" if name == "raw" else name, MIB)
    assert done.truncated
    assert len(done.data) > len(text) // 4
    assert text.startswith(done.data)
    nearly = inflate(body[:-1], "deflate" if name == "raw" else name, MIB)
    assert nearly.truncated
    assert text.startswith(nearly.data)


@pytest.mark.parametrize("name", ENCODERS)
def test_output_stops_at_the_limit(name: str) -> None:
    body = ENCODERS[name](TEXT)
    coding = "deflate" if name == "raw" else name
    assert not inflate(body, coding, len(TEXT)).truncated
    done = inflate(body, coding, len(TEXT) - 1)
    assert done.truncated
    assert done.data == TEXT[:-1]
    assert inflate(body, coding, 0).truncated


def test_a_plain_body_over_the_limit_is_cut() -> None:
    assert inflate(TEXT, "", 10).data == TEXT[:10]
    assert inflate(TEXT, "", 10).truncated


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("body", [b"not compressed at all", b"\xff" * 500, b"<html>" * 15_000])
def test_corrupt_data_is_unreadable(coding: str, body: bytes) -> None:
    with pytest.raises(Unreadable) as caught:
        inflate(body, coding, MIB)
    assert "not compressed" not in str(caught.value)


def test_bytes_after_the_end_are_corrupt() -> None:
    for coding in CODINGS:
        with pytest.raises(Unreadable):
            inflate(encode(TEXT, coding) + b"more" * 9000, coding, MIB)


def test_a_wrong_checksum_is_unreadable() -> None:
    body = bytearray(gzip.compress(TEXT))
    body[-5] ^= 1
    with pytest.raises(Unreadable):
        inflate(bytes(body), "gzip", MIB)


@pytest.mark.parametrize("header", ["compress", "br;q=1", "gzip, zip", "gzip, gzip, gzip, gzip", "aes128gcm"])
def test_an_unknown_encoding_or_a_tower_of_them_is_unreadable(header: str) -> None:
    body = TEXT
    for _ in range(header.count("gzip") or 1):
        body = gzip.compress(body)
    with pytest.raises(Unreadable):
        inflate(body, header, MIB)


@settings(STEADY, max_examples=300)
@given(
    coding=st.sampled_from((*CODINGS, "gzip, br", "br, zstd, deflate")),
    body=st.binary(max_size=300),
    flip=st.none() | st.integers(0, 10_000),
)
def test_whatever_comes_in_only_unreadable_comes_out(coding: str, body: bytes, flip: int | None) -> None:
    if flip is not None:
        packed = bytearray(encode(TEXT[:500] + body, coding))
        packed[flip % len(packed)] ^= 1 << (flip % 8)
        body = bytes(packed)
    try:
        done = inflate(body, coding, 5000)
    except Unreadable:
        return
    assert len(done.data) <= 5000


def zstd_bomb(size: int) -> bytes:
    """A frame of RLE blocks, written by hand: four bytes for every 128 KiB."""
    block = (128 << 10 << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
    return b"\x28\xb5\x2f\xfd\x00\x38" + block * (size >> 17)  # window of 128 KiB, no checksum, size unknown


def brotli_bomb(size: int) -> bytes:
    codec = brotli.Compressor(quality=1, lgwin=22)
    piece = b"\0" * (16 * MIB)
    return b"".join([codec.process(piece) for _ in range(size // len(piece))]) + bytes(codec.finish())


def gzip_bomb(size: int) -> bytes:
    """Members that repeat: the same compressed bytes stand for all of the 10 GB."""
    member = gzip.compress(b"\0" * (64 * MIB), mtime=0)
    return member * (size // (64 * MIB))


BOMBS: dict[str, Callable[[], bytes]] = {
    "zstd": lambda: zstd_bomb(10_000 * MIB),
    "br": lambda: brotli_bomb(512 * MIB),
    "gzip": lambda: gzip_bomb(10_000 * MIB),
    "gzip, gzip": lambda: gzip.compress(gzip_bomb(10_000 * MIB)),
    "gzip, zstd": lambda: zstandard.compress(gzip_bomb(10_000 * MIB)),
}


@pytest.mark.parametrize("coding", BOMBS)
def test_a_bomb_is_stopped_within_the_limit_in_time_and_memory(coding: str) -> None:
    bomb = BOMBS[coding]()
    tracemalloc.start()
    started = time.process_time()
    try:
        done = inflate(bomb, coding, 4 * MIB)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert done.truncated
    assert len(done.data) <= 4 * MIB
    assert peak < 24 * MIB
    assert time.process_time() - started < 2


def test_many_tiny_members_are_read_in_linear_time() -> None:
    started = time.process_time()
    assert inflate(gzip.compress(b"x", mtime=0) * 25_000, "gzip", MIB).data == b"x" * 25_000
    assert inflate(zstandard.compress(b"x") * 25_000, "zstd", MIB).data == b"x" * 25_000
    assert time.process_time() - started < 5
