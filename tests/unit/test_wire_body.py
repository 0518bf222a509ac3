"""Bodies of requests: forms, JSON, gzip with and without saying so, and what pretends to be one of these."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from urllib.parse import quote, urlencode

import pytest
from flask import Flask, request
from hypothesis import example, given
from hypothesis import strategies as st

from pandaserver.errors import BadInput, TooLarge
from pandaserver.web.body import read_parameters

FORM, JSON = "application/x-www-form-urlencoded", "application/json"
MOST = 100_000
APP = Flask("bodies")


def read(body: bytes = b"", content_type: str = JSON, *, query: str = "", method: str = "POST", **headers: str):
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    with APP.test_request_context(f"/?{query}", method=method, data=body, content_type=content_type, headers=sent):
        return read_parameters(request, MOST)


def told(*arguments, **options):
    return read(*arguments, **options)[0]


def refusal(*arguments, **options) -> BadInput:
    with pytest.raises(BadInput) as caught:
        read(*arguments, **options)
    assert caught.value.field == "body"
    return caught.value


def test_json():
    assert told(b'{"a": [1, null], "b": "\xc3\xa9"}') == {"a": [1, None], "b": "é"}


@pytest.mark.parametrize("content_type", ["text/plain", "", "application/octet-stream", FORM, "application/json; x=y"])
def test_json_is_known_by_its_brace(content_type):
    assert told(b' {"a": 1}', content_type) == {"a": 1}


@pytest.mark.parametrize("headers", [{}, {"Content_Encoding": "gzip"}])
@pytest.mark.parametrize("content_type", [JSON, ""])
def test_gzip_is_known_by_its_first_bytes(content_type, headers):
    assert told(gzip.compress(b'{"a": 1}'), content_type, **headers) == {"a": 1}


def test_forms():
    body = urlencode({"jobs": '[{"a": "é&="}]', "empty": ""}).encode()
    assert told(body, FORM) == {"jobs": '[{"a": "é&="}]', "empty": ""}
    assert told(gzip.compress(body), FORM) == told(body, FORM)
    assert told(b"ids=1&ids=2", FORM) == {"ids": ["1", "2"]}


def test_the_query_is_read_too_and_the_body_counts_more():
    assert told(query="a=1&b=2&b=3", method="GET") == {"a": "1", "b": ["2", "3"]}
    assert told(b'{"a": 5}', query="a=1&b=2") == {"a": 5, "b": "2"}


@pytest.mark.parametrize("body", [b"", b"  \n"])
@pytest.mark.parametrize("content_type", [JSON, FORM])
def test_an_empty_body_says_nothing(body, content_type):
    assert told(b"", content_type) == {}


def test_a_file():
    data = {"file": (io.BytesIO(b"content"), "/data/alice/job.tgz"), "note": "text"}
    with APP.test_request_context("/", method="POST", data=data):
        fields, upload = read_parameters(request, MOST)
        assert fields == {"note": "text"} and upload is not None
        assert (upload.name, upload.stream.read()) == ("/data/alice/job.tgz", b"content")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"{", "no JSON"), (b"nonsense", "no JSON"), (b"\x00\x01\x02", "no JSON"), (b'{"a": "\xff"}', "no JSON"),
        (b"[1, 2]", "a list, not an object"), (b'"text"', "a str, not"), (b"5", "an? int|a int"), (b"null", "NoneType"),
        (b'{"a": NaN}', "NaN"), (b'{"jobs": 1, "jobs": 2}', "'jobs' is there twice"), (b'{"a":' * 5000, "no JSON"),
        (b"[" * 90_000, "nested too deeply"), (b'{"a": 1} {"b": 2}', "Extra data"), (b"(lp0\nI1\na.", "no JSON"),
        (b"\x80\x04\x95\x0b\x00", "no JSON"),
    ],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
def test_what_is_no_object_is_refused(body, why):
    with pytest.raises(BadInput, match=why) as caught:
        read(body)
    assert caught.value.field == "body" and len(caught.value.value or "") < 200


@pytest.mark.parametrize(
    "body", [b"jobs=%ff%fe", b"jobs=\xff", b"&".join([b"a=1"] * 1001), quote("é", encoding="latin-1").encode()]
)
def test_forms_that_cannot_be_read_are_refused(body):
    assert "no form" in refusal(body, FORM).message


def test_a_body_that_is_too_large_is_refused_before_it_is_read():
    for body, content_type in ((b" " * (MOST + 1), JSON), (b"a=" + b"b" * MOST, FORM), (b"\xff" * 10 * MOST, "")):
        assert isinstance(refusal(body, content_type), TooLarge)
    assert str(MOST) in refusal(b" " * (MOST + 1)).message


def test_a_body_as_large_as_allowed_is_read():
    body = json.dumps({"a": "x" * (MOST - 9)}).encode()
    assert len(body) == MOST and len(told(body)["a"]) == MOST - 9
    form = b"a=" + b"b" * (MOST - 2)
    assert len(told(form, FORM)["a"]) == MOST - 2


def test_a_bomb_is_not_inflated():
    bomb = gzip.compress(b" " * (50 * 1024 * 1024))
    assert len(bomb) < MOST
    assert isinstance(refusal(bomb), TooLarge)
    assert isinstance(refusal(gzip.compress(b'{"a": "' + b"x" * MOST + b'"}')), TooLarge)


@pytest.mark.parametrize("cut", [2, 5, 10, 15, -8, -1])
def test_gzip_that_ends_too_early_is_refused(cut):
    assert "gzip" in refusal(gzip.compress(b'{"a": "0123456789"}')[:cut]).message


def test_damaged_gzip_is_refused():
    good = bytearray(gzip.compress(b'{"a": "0123456789"}'))
    for place in range(2, len(good)):
        damaged = bytes(good[:place]) + bytes([good[place] ^ 0xFF]) + bytes(good[place + 1 :])
        try:
            assert told(damaged) == {"a": "0123456789"}, "only bytes of no meaning may differ"
        except BadInput as error:
            assert error.field == "body"


def test_a_stream_without_a_length_has_the_same_limit():
    class Endless(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer) -> int:
            buffer[:] = b" " * len(buffer)
            return len(buffer)

    environ = {"wsgi.input": io.BufferedReader(Endless()), "wsgi.input_terminated": True}
    for content_type in (JSON, FORM, "multipart/form-data; boundary=b"):
        with (
            APP.test_request_context("/", method="POST", content_type=content_type, environ_overrides=environ),
            pytest.raises(TooLarge),
        ):
            read_parameters(request, MOST)


@given(st.binary(max_size=300))
@example(b"\x1f\x8b")
@example(b"\x1f\x8b\x08\x00" + b"\x00" * 6)
@example(zlib.compress(b"{}"))
def test_any_bytes_are_read_or_refused(body):
    for content_type in (JSON, FORM, ""):
        try:
            assert isinstance(told(body, content_type), dict)
        except BadInput as error:
            assert error.field == "body"
