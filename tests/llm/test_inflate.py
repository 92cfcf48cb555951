"""What an endpoint compresses without being asked: read, and never beyond a bound."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusiontools.errors import CallFailed
from fusiontools.llm.inflate import BODY_LIMIT_BYTES, Inflater, Room


def raw_deflate(data: bytes) -> bytes:
    made = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return made.compress(data) + made.flush()


CODINGS = {"gzip": gzip.compress, "X-GZip": gzip.compress, "deflate": zlib.compress, "identity, gzip": gzip.compress}


@pytest.mark.parametrize("codings", [*CODINGS, "deflate without its head", "gzip, deflate", "several"])
@given(data=st.binary(max_size=3000), cut=st.integers(1, 50))
def test_what_is_compressed_comes_back_however_it_is_cut(codings: str, data: bytes, cut: int) -> None:
    if codings == "several":
        said, body = "gzip", gzip.compress(data) + gzip.compress(data) + b"\0\0"
    elif codings == "gzip, deflate":
        said, body = codings, zlib.compress(gzip.compress(data))
    elif codings in CODINGS:
        said, body = codings, CODINGS[codings](data)
    else:
        said, body = "deflate", raw_deflate(data)
    inflater = Inflater(said, Room())

    found = b"".join(piece for i in range(0, len(body), cut) for piece in inflater.feed(body[i : i + cut]))

    assert found == (data * 2 if codings == "several" else data)


@pytest.mark.parametrize("codings", ["br", "zstd", "compress", "gzip, br", "gzip, gzip, gzip", "x" * 999])
def test_a_coding_that_nobody_asked_for_is_a_bad_response(codings: str) -> None:
    with pytest.raises(CallFailed) as failed:
        Inflater(codings, Room())

    assert failed.value.code == "bad_response"
    assert len(failed.value.message) < 200


@pytest.mark.parametrize("codings", ["gzip", "deflate", "gzip, gzip"])
def test_a_bomb_is_cut_in_bounded_memory(codings: str) -> None:
    bomb = b"".join(zlib_bomb(gzip_head=codings != "deflate"))
    body = gzip.compress(bomb) if codings == "gzip, gzip" else bomb
    inflater = Inflater(codings, Room())
    tracemalloc.start()
    try:
        with pytest.raises(CallFailed, match="inflates to over 64 MiB"):
            for _ in inflater.feed(body):
                pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 8 * 2**20


def zlib_bomb(*, gzip_head: bool) -> list[bytes]:
    made = zlib.compressobj(wbits=16 + zlib.MAX_WBITS if gzip_head else zlib.MAX_WBITS)
    return [*(made.compress(bytes(2**20)) for _ in range(BODY_LIMIT_BYTES // 2**20 + 1)), made.flush()]


def test_all_bodies_have_a_bound_together_and_give_back_what_they_took() -> None:
    room = Room(10_000)
    first, second = Inflater("gzip", room), Inflater("gzip", room)
    body = gzip.compress(bytes(9_000))

    assert sum(map(len, first.feed(body))) == 9_000
    with pytest.raises(CallFailed, match="more than there is room for"):
        list(second.feed(body))
    first.close()
    second.close()

    assert sum(map(len, Inflater("gzip", room).feed(body))) == 9_000


@pytest.mark.parametrize("codings", ["gzip", "deflate"])
def test_what_is_not_compressed_as_it_says_is_an_error_of_zlib(codings: str) -> None:
    with pytest.raises(zlib.error):
        list(Inflater(codings, Room()).feed(b"\xff\xffno, nothing of that kind"))
