"""What the front answers to requests that are odd, too large, slow or no HTTP at all, through HAProxy as it runs.

HAProxy answers by itself, in HTML, what its parser refuses: its version 2.8 takes no text of ours there.
"""

from __future__ import annotations

import json
import random
import socket
import time
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest

from aiqueue.http_config import HttpConfig
from serve.app import create_app
from tests.http.fakes import DictAdapter
from tests.tools.front import SECRET, WAIT_S, front, sent

_HOST = b"Host: localhost\r\nConnection: close\r\n"
_UPGRADE = b"Host: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
_KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
_JSON = b"Content-Type: application/json\r\n"
_GET = b"GET /ai/live HTTP/1.1\r\n" + _HOST
_POST = b"POST /ai/jobs HTTP/1.1\r\n" + _HOST + _JSON
_MUTATIONS = 400


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The front of an application."""
    with front(create_app(DictAdapter, HttpConfig(), secret=SECRET)) as found:
        yield found


def parts(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    """Return the status, headers and body of an answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(first.split()[1]), headers, body


def assert_problem(answer: bytes, status: int) -> None:
    """Check that an answer is a problem body of this status."""
    found, headers, body = parts(answer)
    assert (found, headers.get("content-type")) == (status, "application/problem+json"), answer[:300]
    assert json.loads(body)["status"] == status


def assert_html_of_haproxy(answer: bytes) -> None:
    """Check that an answer is HAProxy's own to a request that it could not read."""
    status, headers, _ = parts(answer)
    assert status in (400, 422), answer[:300]
    assert headers["content-type"] == "text/html"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /ai/live?" + b"a" * 20_000 + b" HTTP/1.1\r\n" + _HOST + b"\r\n", 414),
        (b"GET /ai/live?" + b"a" * 60_000 + b" HTTP/1.1\r\n" + _HOST + b"\r\n", 414),
        (_GET + b"X: " + b"a" * 20_000 + b"\r\n\r\n", 431),
        (_GET + b"X: " + b"a" * 60_000 + b"\r\n\r\n", 431),
        (_GET + b"".join(b"X%d: 1\r\n" % n for n in range(120)) + b"\r\n", 431),
        (_GET + b"".join(b"X%d: 1\r\n" % n for n in range(900)) + b"\r\n", 431),
        (b"SHUFFLE /ai/live HTTP/1.1\r\n" + _HOST + b"\r\n", 501),
        (b"get /ai/live HTTP/1.1\r\n" + _HOST + b"\r\n", 501),
        (b"POST /ai/ws HTTP/1.1\r\n" + _UPGRADE + _KEY + b"Sec-WebSocket-Version: 13\r\n\r\n", 400),
        (b"GET /ai/ws HTTP/1.1\r\n" + _UPGRADE + _KEY + b"Sec-WebSocket-Version: 7\r\n\r\n", 426),
        (b"GET /ai/ws HTTP/1.1\r\n" + _UPGRADE + _KEY + b"\r\n", 426),
        (_GET + b"X: a\x01b\r\n\r\n", 400),
        (b"GET /ai/live HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
        (_POST + b"Content-Length: 9223372036854775807\r\n\r\n{}", 413),
        (_POST + b"Content-Length: 2\r\n\r\n{}", 400),
    ],
)
def test_a_request_that_is_refused_gets_a_problem_body_of_the_right_status(
    url: str, request_: bytes, status: int
) -> None:
    assert_problem(sent(url, request_), status)


@pytest.mark.parametrize(
    "request_",
    [
        _GET + b"X: " + b"a" * 15_500 + b"\r\n\r\n",
        b"GET /ai/live?" + b"a" * 15_500 + b" HTTP/1.1\r\n" + _HOST + b"\r\n",
        _GET + b"".join(b"X%d: 1\r\n" % n for n in range(98)) + b"\r\n",
        _GET + b"X: 1\r\n  2\r\n\r\n",
        _GET + b"X: \xe4\r\n\r\n",
        _GET + b"Content-Length: 2\r\n\r\n{}",
        b"\r\n" + _GET + b"\r\n",
        b"GET http://localhost/ai/live HTTP/1.1\r\n" + _HOST + b"\r\n",
        b"GET /ai/live HTTP/1.0\r\n\r\n",
        b'GET /ai/live?x="<>\\^`{|} HTTP/1.1\r\n' + _HOST + b"\r\n",
    ],
)
def test_a_request_that_is_odd_and_valid_is_served(url: str, request_: bytes) -> None:
    assert parts(sent(url, request_))[0] == 200


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /ai/live\r\n\r\n",
        b"GET /ai/li ve HTTP/1.1\r\n" + _HOST + b"\r\n",
        b"GET /ai/live#x HTTP/1.1\r\n" + _HOST + b"\r\n",
        _GET + b"no colon\r\n\r\n",
        _GET + b"Host: another\r\n\r\n",
        _GET + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
        _POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        _POST + b"Content-Length: -1\r\n\r\n{}",
        _POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        _POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"GET /ai/ws HTTP/1.1\r\n" + _UPGRADE + b"Sec-WebSocket-Version: 13\r\n\r\n",
    ],
)
def test_what_haproxy_cannot_read_it_refuses_in_its_own_words(url: str, request_: bytes) -> None:
    assert_html_of_haproxy(sent(url, request_))


def mutated(request_: bytes, draw: random.Random) -> bytes:
    """Return a request with some bytes changed, doubled or left out."""
    found = bytearray(request_)
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(found) - 4)  # the empty line at the end stays, so that it is a request
        kind = draw.randrange(4)
        if kind == 0:
            found[at] = draw.randrange(256)
        elif kind == 1:
            found[at:at] = bytes([draw.randrange(256)])
        elif kind == 2:
            del found[at]
        else:
            found[at:at] = draw.choice((b"\r\n", b"\n", b": ", b" ", b"\t", b"%00", b"//", b"\x00", b"Host: x\r\n"))
    return bytes(found)


def test_a_mangled_request_is_answered_by_us_or_refused_and_never_taken_for_a_failure_of_the_server(url: str) -> None:
    seed = random.randrange(2**32)
    draw = random.Random(seed)
    upgrade = (
        b"GET /ai/ws HTTP/1.1\r\n" + _UPGRADE + _KEY + b"Sec-WebSocket-Version: 13\r\nOrigin: http://localhost\r\n"
    )
    seen: Counter[int] = Counter()
    for number in range(_MUTATIONS):
        request_ = mutated(draw.choice((_GET, _GET + b"Accept: */*\r\n", upgrade)) + b"\r\n", draw)
        answer = sent(url, request_)
        where = (seed, number, request_, answer[:300])
        assert answer, where
        status, headers, _ = parts(answer)
        seen[status] += 1
        assert status in (101, 200, 307, 501) or 400 <= status < 500, where
        if status >= 400 and headers.get("content-type") != "application/problem+json":
            assert (status, headers["content-type"]) == (400, "text/html"), where

    assert seen[200], "no request was served"
    assert seen[400], "no request was mangled"


def test_a_client_that_dribbles_its_headers_is_ended_and_others_are_served_meanwhile() -> None:
    app = create_app(DictAdapter, HttpConfig(), secret=SECRET)
    with front(app, headers_s=1.0) as url:
        address = httpx.URL(url)
        with socket.create_connection((address.host, address.port or 0), timeout=0.05) as slow:
            slow.sendall(b"GET /ai/live HTTP/1.1\r\n")
            until, answer, served = time.monotonic() + WAIT_S, b"", 0
            while time.monotonic() < until:
                try:
                    slow.sendall(b"X: a\r\n")
                    if not (piece := slow.recv(65_536)):
                        break
                    answer += piece
                except TimeoutError:
                    assert httpx.get(f"{url}/ai/live", trust_env=False).status_code == 200
                    served += 1
                except ConnectionError:
                    break
            else:
                raise AssertionError(f"the connection was still open after {WAIT_S} s")
    assert answer == b"" or parts(answer)[0] == 408, answer
    assert served
