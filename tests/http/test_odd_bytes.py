"""Bodies with bytes that are no text, names that stand twice, and numbers that are none: 400, at every size."""

from __future__ import annotations

import json

import pytest

from aiqueue.models import SubmitBody
from aiqueue.testing.jobs import chat
from serve.bodies import parse_batch, parse_body
from tests.http.conftest import fields_of, is_problem
from tests.http.rig import Rig

JSON = {"content-type": "application/json"}
JOB = json.dumps(chat("x")).encode()
NODE = b'{"payload":%b}' % JOB
ODD = {
    "no UTF-8": b'["\xff"]',
    "no number": b"[1e400]",
    "NaN": b"[NaN]",
    "half a pair": b'["\\ud800"]',
    "nothing odd": b"[{}]",
}
SIZES = {"small": 1, "large": 150}
MORE = {"good": b"", "and a bad job": b",{}"}


def many(each: bytes, count: int, *, named: bool = False) -> bytes:
    return b",".join(b'"n%d":%b' % (number, each) if named else each for number in range(count))


@pytest.mark.parametrize("more", MORE)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize(("path", "field"), [("/ai/jobs/batch", b"jobs"), ("/ai/chains", b"steps")])
async def test_a_list_that_is_given_twice_is_refused_whatever_the_first_one_holds(
    path: str, field: bytes, odd: str, size: str, more: str, rig: Rig
) -> None:
    body = b'{"%b":%b,"%b":[%b%b]}' % (field, ODD[odd], field, many(JOB, SIZES[size]), MORE[more])
    answer = await rig.http.post(path, content=body, headers=JSON)
    assert is_problem(answer, 400, "invalid_input"), answer.text
    assert fields_of(answer) in (["body"], [field.decode()])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("where", ["first", "last", "before the last", "the same"])
async def test_a_node_that_is_given_twice_is_refused_by_name(where: str, size: str, rig: Rig) -> None:
    named = many(NODE, SIZES[size], named=True)
    doubles = {
        "first": b'"a":{}, "a" : %b,%b' % (NODE, named),
        "last": b'%b,"\\u0061":{},"a":%b' % (named, NODE),
        "before the last": b'%b,"a":{},"a":%b,"z":%b' % (named, NODE, NODE),
        "the same": b'"a":%b,%b \n ,"a":%b' % (NODE, named, NODE),
    }
    answer = await rig.http.post("/ai/graphs", content=b'{"nodes":{%b}}' % doubles[where], headers=JSON)
    assert is_problem(answer, 400, "invalid_input"), answer.text
    assert fields_of(answer) == ["nodes.a"]


async def test_of_a_name_that_stands_twice_further_inside_the_last_one_counts() -> None:
    job = json.dumps(chat("x")).encode()
    doubled = b'%b,"model":"first","model":"last"}' % job[:-1]
    batch = await parse_batch(b'{"jobs":[%b],"options":{"priority":"low","priority":"high"}}' % doubled)
    assert (batch.jobs[0].model, batch.options.priority) == ("last", "high")
    single = parse_body(SubmitBody, b'{"priority":"low","payload":{},"priority":"high","payload":%b}' % doubled)
    assert (single.payload.model, single.priority) == ("last", "high")


def test_a_whole_number_beyond_64_bits_is_kept() -> None:
    payload = chat("x") | {"config": {"extra_body": {"x": 10**30}}}
    body = parse_body(SubmitBody, json.dumps({"payload": payload}).encode())
    assert body.payload.config.extra_body == {"x": 10**30}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("odd", [name for name in ODD if name != "nothing odd"])
async def test_odd_bytes_anywhere_in_a_body_are_refused_at_every_size(odd: str, size: str, rig: Rig) -> None:
    wrong = JOB[:-1] + b',"config":{"extra_body":{"x":%b}}}' % ODD[odd]
    jobs = many(JOB, SIZES[size])
    nodes = many(NODE, SIZES[size], named=True)
    for path, body in (
        ("/ai/jobs/batch", b'{"jobs":[%b,%b]}' % (jobs, wrong)),
        ("/ai/jobs/batch", b'{"jobs":[%b,{}],"x":%b}' % (jobs, ODD[odd])),
        ("/ai/jobs/batch", b'{"options":{"metadata":{"x":%b}},"jobs":[%b]}' % (ODD[odd], jobs)),
        ("/ai/chains", b'{"steps":[%b,%b]}' % (jobs, wrong)),
        ("/ai/graphs", b'{"nodes":{%b,"a":{"payload":%b}}}' % (nodes, wrong)),
        ("/ai/graphs", b'{"nodes":{%b,%b:{"payload":%b}}}' % (nodes, ODD[odd][1:-1], JOB)),
    ):
        answer = await rig.http.post(path, content=body, headers=JSON)
        assert is_problem(answer, 400, "invalid_input"), (path, answer.text)
        assert odd != "NaN" or fields_of(answer) == ["body"]
