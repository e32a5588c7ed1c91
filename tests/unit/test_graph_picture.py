"""Pictures of chains and graphs."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree

import hypothesis.strategies as st
from hypothesis import given

from aiqueue.batch_views import BatchInfo, GraphInfo, GraphNode
from aiqueue.graph_picture import COLOURS, MOST, Box, svg
from aiqueue.views import encode_json, moment

SVG = "{http://www.w3.org/2000/svg}"


@st.composite
def graphs(draw: st.DrawFn) -> list[Box]:
    """Return steps that wait for some of those before them."""
    boxes = list[Box]()
    for at in range(draw(st.integers(1, 12))):
        after = draw(st.sets(st.integers(0, at - 1))) if at else set()
        status = draw(st.sampled_from([*COLOURS, "queued", "blocked"]))
        boxes.append(Box(draw(st.text("ab<&\"'> ", max_size=9)), status, "job & <error>", sorted(after)))
    return boxes


@given(boxes=graphs())
def test_every_step_is_drawn_below_those_it_waits_for_and_beside_no_other(boxes: list[Box]) -> None:
    drawn = ElementTree.fromstring(svg(boxes))
    rects = [
        {name: float(rect.get(name, 0)) for name in ("x", "y", "width", "height")} for rect in drawn.iter(f"{SVG}rect")
    ]
    assert len(rects) == len(boxes)
    for at, box in enumerate(boxes):
        assert all(rects[of]["y"] + rects[of]["height"] < rects[at]["y"] for of in box.after)
        assert 0 <= rects[at]["x"] <= rects[at]["x"] + rects[at]["width"] <= float(drawn.get("width", 0))
    for row in {rect["y"] for rect in rects}:
        beside = sorted((rect["x"], rect["x"] + rect["width"]) for rect in rects if rect["y"] == row)
        assert all(left[1] < right[0] for left, right in pairwise(beside))
    assert len(list(drawn.iter(f"{SVG}line"))) == sum(len(box.after) for box in boxes)
    assert [text.text for text in drawn.iter(f"{SVG}text")][::2] == [box.name or None for box in boxes]


def info_of(*nodes: GraphNode) -> GraphInfo:
    now = moment(1.0)
    assert now
    batch = BatchInfo(batch_id="graph-1", kind="graph", status="failed", total=len(nodes), created_at=now)
    return GraphInfo(batch=batch, nodes=list(nodes))


def test_a_steps_state_is_its_colour_and_its_error_is_shown_when_one_points_at_it() -> None:
    first = GraphNode(name="first", job_id="j1", status="failed", error="timeout: too slow")
    second = GraphNode(name="second", job_id="j2", status="blocked", depends_on=["first", "of another graph"])
    picture = info_of(first, second).to_svg()
    fill, border = COLOURS["failed"]
    assert f'fill="{fill}" stroke="{border}"' in picture
    assert "<title>j1 timeout: too slow</title>" in picture
    assert picture.count("<line") == 1


def test_a_graph_too_large_for_a_picture_is_shown_as_text() -> None:
    nodes = [GraphNode(name=str(at), job_id=str(at), status="queued") for at in range(MOST + 1)]
    assert info_of(*nodes)._repr_svg_() is None
    assert info_of(*nodes[:-1])._repr_svg_()
    assert b"svg" not in encode_json(info_of(*nodes[:2]))
