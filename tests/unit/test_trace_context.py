"""The context of a caller's trace: what is taken from headers, and what is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from live_models import live_model
from records import call

from application.telemetry import TraceContext, Untraced
from web.gateway.trace_context import STATE_LIMIT, read_trace_context

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def read(parent: str | None, *states: str) -> TraceContext | None:
    parents = [] if parent is None else [(b"traceparent", parent.encode("latin-1"))]
    return read_trace_context([*parents, *((b"tracestate", state.encode("latin-1")) for state in states)])


def state(*states: str) -> str:
    context = read(PARENT, *states)
    assert context is not None
    return context.tracestate


@pytest.mark.parametrize(
    "parent", [PARENT, PARENT[:-2] + "00", f"01-{PARENT[3:]}", f"cc-{PARENT[3:]}-what-will-be"]
)
def test_a_valid_parent_is_taken_as_it_came(parent: str) -> None:
    assert read(parent) == TraceContext(parent)


@pytest.mark.parametrize(
    "parent",
    [
        None,
        "",
        PARENT.upper(),
        PARENT[:-1],
        f"{PARENT}-more",
        f"{PARENT} ",
        f"ff-{PARENT[3:]}",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01",
        "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
        f"01-{PARENT[3:]}-two words",
        f"01-{PARENT[3:]}-{'x' * 300}",
    ],
)
def test_any_other_is_none_and_takes_the_state_with_it(parent: str | None) -> None:
    assert read(parent, "a=1") is None


def test_two_parents_are_none() -> None:
    header = (b"traceparent", PARENT.encode())
    assert read_trace_context([header, header]) is None


def test_a_state_of_several_lines_is_one() -> None:
    assert state("a=1,b=2 ,\tc=3", "", "d@e=4 5") == "a=1,b=2,c=3,d@e=4 5"


@pytest.mark.parametrize(
    "sent",
    [
        "a",
        "=1",
        "a=",
        "A=1",
        "a=1;b=2,c",
        "a=1=2",
        "a=ü",
        f"a={'x' * 257}",
        ",".join(f"a{n}=1" for n in range(33)),
    ],
)
def test_a_state_that_is_not_valid_is_left_out(sent: str) -> None:
    assert state(sent) == ""


def test_of_a_long_state_as_many_members_pass_as_have_room() -> None:
    members = [f"k{number}={'v' * 100}" for number in range(9)]
    passed = state(",".join(members))
    assert passed == ",".join(members[:4])
    assert len(passed) <= STATE_LIMIT


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_whatever_is_sent_what_passes_is_fit_for_a_header(parent: bytes, sent: bytes) -> None:
    for first in (parent, PARENT.encode()):
        context = read_trace_context([(b"traceparent", first), (b"tracestate", sent)])
        if context is not None:
            assert f"{context.traceparent}{context.tracestate}".isprintable()
            assert f"{context.traceparent}{context.tracestate}".isascii()


def test_who_does_not_trace_passes_the_context_on_as_it_is() -> None:
    model = live_model()
    context = TraceContext(PARENT, "a=1")
    trace = Untraced().begin("chat", model, context)
    assert trace.headers == {"traceparent": PARENT, "tracestate": "a=1"}
    assert Untraced().begin("chat", model, TraceContext(PARENT)).headers == {"traceparent": PARENT}
    assert Untraced().begin("chat", model, None).headers == {}
    assert not trace.detailed
    trace.end(call())
