"""The demo upstream as its own process, and the scripted upstream, both as the openai SDK sees them."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from math import hypot
from threading import Event

import httpx2
import openai
import pytest
from openai import AsyncAzureOpenAI, AsyncOpenAI, DefaultAsyncHttpx2Client
from openai.types.chat import ChatCompletionChunk
from upstream import (
    CutMidStream,
    EndWithoutDone,
    ErrorFrame,
    Hang,
    Raw,
    Reply,
    ScriptedUpstream,
    Status,
    Stream,
    block_until,
    wait_until,
)

from web.demo.requests import ABOUT
from web.demo.upstream import BODY_LIMIT, WORD_DELAY, create_demo_upstream

KEY = "demo-key-1234"
API_VERSION = "2025-01-01-preview"
HELLO = [{"role": "user", "content": "Which  model\nare you?"}]
IMPORT = "from web.demo.upstream import serve_demo_upstream as serve; "
CHILD = IMPORT + "serve({port}, exit_with_parent=True)"
ALONE = IMPORT + "serve({port}, {key!r}, exit_with_parent=False)"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def start(program: str, port: int, key: str = KEY) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", program.format(port=port, key=key)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)


def accepts(port: int) -> bool:
    with closing(socket.socket()) as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def start_child(port: int) -> subprocess.Popen[bytes]:
    process = start(CHILD, port)
    process.stdin.write(KEY.encode() + b"\n")
    process.stdin.flush()
    block_until(lambda: accepts(port), within=5)
    return process


def azure(origin: str, key: str = KEY, max_retries: int = 0) -> AsyncAzureOpenAI:
    return AsyncAzureOpenAI(
        azure_endpoint=origin,
        api_version=API_VERSION,
        api_key=key,
        max_retries=max_retries,
        http_client=DefaultAsyncHttpx2Client(trust_env=False),
    )


def v1(origin: str, key: str = KEY) -> AsyncOpenAI:
    http_client = DefaultAsyncHttpx2Client(trust_env=False)
    return AsyncOpenAI(base_url=f"{origin}/openai/v1/", api_key=key, max_retries=0, http_client=http_client)


async def streamed(client: AsyncOpenAI, **options: object) -> list[ChatCompletionChunk]:
    stream = await client.chat.completions.create(model="gpt-4", messages=HELLO, stream=True, **options)
    return [chunk async for chunk in stream]


def text_of(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


@pytest.fixture(scope="module")
def demo() -> Iterator[str]:
    port = free_port()
    with start_child(port) as process:
        yield f"http://127.0.0.1:{port}"
        _, complaints = process.communicate(timeout=5)
    assert (process.returncode, complaints) == (0, b"")


@pytest.fixture
async def client(demo: str) -> AsyncIterator[AsyncAzureOpenAI]:
    async with azure(demo) as client:
        yield client


@pytest.fixture
async def http(demo: str) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=demo, headers={"api-key": KEY}, trust_env=False) as client:
        yield client


@pytest.fixture
def up() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as upstream:
        yield upstream
        assert upstream.unplayed == 0, "the test did not make the calls that it scripted"


class TestAnswers:
    async def test_an_azure_client_gets_a_whole_answer(self, client: AsyncAzureOpenAI) -> None:
        answer = await client.chat.completions.create(model="gpt-4", messages=HELLO)
        assert answer.object == "chat.completion"
        assert answer.id.startswith("chatcmpl-")
        assert abs(answer.created - time.time()) < 60
        assert (answer.choices[0].message.role, answer.choices[0].finish_reason) == ("assistant", "stop")
        assert answer.usage.prompt_tokens == 4
        assert answer.usage.total_tokens == 4 + answer.usage.completion_tokens

    async def test_an_answer_quotes_the_last_question_and_says_what_it_is(
        self, client: AsyncAzureOpenAI
    ) -> None:
        earlier = [{"role": "user", "content": "Before?"}, {"role": "assistant", "content": "Yes."}]
        answer = await client.chat.completions.create(model="gpt-4", messages=[*earlier, *HELLO])
        assert answer.choices[0].message.content == f'You wrote: "Which model are you?". {ABOUT}'
        assert "no language model" in ABOUT

    async def test_a_long_question_is_quoted_in_part(self, client: AsyncAzureOpenAI) -> None:
        parts = [{"type": "text", "text": "word " * 1000}, {"type": "image_url", "image_url": {"url": "x"}}]
        answer = await client.chat.completions.create(
            model="gpt-4", messages=[{"role": "user", "content": parts}]
        )
        assert answer.choices[0].message.content.startswith('You wrote: "word word')
        assert len(answer.choices[0].message.content) < 150 + len(ABOUT)

    async def test_a_v1_client_gets_the_same(self, demo: str, client: AsyncAzureOpenAI) -> None:
        async with v1(demo) as other:
            by_v1 = await other.chat.completions.create(model="gpt-4", messages=HELLO)
        by_azure = await client.chat.completions.create(model="gpt-4", messages=HELLO)
        assert by_v1.choices == by_azure.choices

    async def test_a_stream_has_the_same_text_word_by_word(self, client: AsyncAzureOpenAI) -> None:
        began = time.monotonic()
        chunks = await streamed(client)
        whole = await client.chat.completions.create(model="gpt-4", messages=HELLO)
        first, *content, last = chunks
        assert text_of(chunks) == whole.choices[0].message.content
        assert first.choices[0].delta.role == "assistant"
        assert (last.choices[0].finish_reason, last.choices[0].delta.content) == ("stop", None)
        assert len(content) == whole.usage.completion_tokens > 50
        assert time.monotonic() - began > WORD_DELAY * len(content)
        assert {(chunk.object, chunk.id) for chunk in chunks} == {("chat.completion.chunk", first.id)}

    async def test_a_stream_ends_with_the_usage_if_asked(self, client: AsyncAzureOpenAI) -> None:
        *chunks, last = await streamed(client, stream_options={"include_usage": True}, max_tokens=5)
        assert (last.choices, last.usage.completion_tokens) == ([], 5)
        assert {chunk.usage for chunk in chunks} == {None}

    async def test_a_stream_ends_with_done(self, http: httpx2.AsyncClient) -> None:
        body = {"model": "gpt-4", "messages": HELLO, "stream": True, "max_tokens": 2}
        answer = await http.post("/openai/v1/chat/completions", json=body)
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.text.endswith("\n\ndata: [DONE]\n\n")

    @pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
    async def test_a_limit_counts_words(self, client: AsyncAzureOpenAI, limit: str) -> None:
        answer = await client.chat.completions.create(model="gpt-4", messages=HELLO, **{limit: 3})
        assert answer.choices[0].message.content == 'You wrote: "Which'
        assert (answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("length", 3)
        chunks = await streamed(client, **{limit: 3})
        assert (text_of(chunks), chunks[-1].choices[0].finish_reason) == ('You wrote: "Which', "length")


class TestOtherOperations:
    @pytest.mark.parametrize("kind", [azure, v1])
    async def test_a_response_is_the_same_answer_whole_and_streamed(
        self, demo: str, kind: Callable[[str], AsyncOpenAI]
    ) -> None:
        async with kind(demo) as client:
            whole = await client.responses.create(model="gpt-4", input=HELLO)
            assert whole.output_text == f'You wrote: "Which model are you?". {ABOUT}'
            assert (whole.status, whole.usage.input_tokens) == ("completed", 4)
            async with client.responses.stream(model="gpt-4", input="Which model are you?") as stream:
                events = [event async for event in stream]
                final = await stream.get_final_response()
        deltas = [event for event in events if event.type == "response.output_text.delta"]
        assert final.output_text == whole.output_text
        assert len(deltas) == whole.usage.output_tokens > 50
        assert [event.sequence_number for event in events] == list(range(len(events)))

    async def test_a_response_has_a_limit_too(self, client: AsyncAzureOpenAI) -> None:
        answer = await client.responses.create(model="gpt-4", input="Hi", max_output_tokens=3)
        assert answer.output_text == 'You wrote: "Hi".'
        assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")

    @pytest.mark.parametrize("kind", [azure, v1])
    async def test_embeddings_follow_from_the_texts(
        self, demo: str, kind: Callable[[str], AsyncOpenAI]
    ) -> None:
        async with kind(demo) as client:
            one = await client.embeddings.create(model="e", input=["a", "b", "a"])
            same = await client.embeddings.create(model="e", input="a", encoding_format="float")
            short = await client.embeddings.create(model="e", input=[15339, 1917], dimensions=3)
        first, second, third = (each.embedding for each in one.data)
        assert first == third != second
        assert first == pytest.approx(same.data[0].embedding)
        assert hypot(*first) == pytest.approx(1)
        assert [len(each.data[0].embedding) for each in (one, short)] == [1536, 3]
        assert len(short.data) == 1
        assert one.usage.total_tokens == 3

    @pytest.mark.parametrize(
        ("path", "body", "param"),
        [
            ("embeddings", b'{"model": "m"}', "input"),
            ("embeddings", b'{"model": "m", "input": []}', "input"),
            ("embeddings", b'{"model": "m", "input": "x", "dimensions": 0}', "dimensions"),
            ("responses", b'{"input": "x"}', "model"),
            ("responses", b'{"model": "m", "max_output_tokens": 0}', "max_output_tokens"),
        ],
    )
    async def test_a_body_that_breaks_a_rule_is_told_which(
        self, http: httpx2.AsyncClient, path: str, body: bytes, param: str
    ) -> None:
        answer = await http.post(f"/openai/v1/{path}", content=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


class TestRefusals:
    async def test_a_wrong_key_is_refused(self, demo: str) -> None:
        async with azure(demo, key="wrong") as by_header, v1(demo, key="wrong") as by_bearer:
            for client in (by_header, by_bearer):
                with pytest.raises(openai.AuthenticationError) as refusal:
                    await client.chat.completions.create(model="gpt-4", messages=HELLO)
                assert refusal.value.code == "401"
                assert "Access denied" in refusal.value.message

    async def test_no_key_is_refused(self, demo: str) -> None:
        async with httpx2.AsyncClient(trust_env=False) as http:
            answer = await http.post(f"{demo}/openai/v1/chat/completions", json={})
        assert answer.status_code == 401
        with pytest.raises(ValueError, match="needs a key"):
            create_demo_upstream("")

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("POST", "/openai/deployments/gpt-4/chat/completions"),  # no api-version
            ("POST", "/openai/deployments/gpt-4/embeddings"),
            ("POST", "/openai/deployments/gpt-4/responses?api-version=1"),
            ("POST", "/openai/responses"),
            ("POST", "/v1/chat/completions"),
            ("GET", "/openai/v1/chat/completions"),
        ],
    )
    async def test_an_unknown_path_is_not_found(
        self, http: httpx2.AsyncClient, method: str, path: str
    ) -> None:
        answer = await http.request(method, path)
        assert answer.status_code == 404
        assert answer.json() == {"error": {"code": "404", "message": "Resource not found"}}
        assert answer.headers["x-request-id"] == answer.headers["apim-request-id"] != ""

    @pytest.mark.parametrize(
        ("body", "param", "code"),
        [
            (b"{", None, None),
            (b'{"x":' + b"[" * 100_000, None, None),
            (b"{}", "messages", "missing_required_parameter"),
            (b'{"messages": []}', "messages", "invalid_value"),
            (b'{"messages": [{"content": "x"}]}', "messages[0].role", "missing_required_parameter"),
            (b'{"messages": [{"role": "user"}]}', "model", "missing_required_parameter"),
            (
                b'{"model": "m", "messages": [{"role": "user"}], "max_tokens": 0}',
                "max_tokens",
                "invalid_value",
            ),
        ],
    )
    async def test_a_body_that_breaks_a_rule_is_told_which(
        self, http: httpx2.AsyncClient, body: bytes, param: str | None, code: str | None
    ) -> None:
        answer = await http.post("/openai/v1/chat/completions", content=body)
        error = answer.json()["error"]
        assert answer.status_code == 400
        assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)
        assert error["message"]

    async def test_a_body_over_the_limit_is_refused(self, http: httpx2.AsyncClient) -> None:
        answer = await http.post("/openai/v1/chat/completions", content=b" " * (BODY_LIMIT + 1))
        assert answer.status_code == 413


class TestProcess:
    def test_it_imports_neither_framework_nor_sdk(self) -> None:
        loaded = "import sys, web.demo.upstream; print(*{name.partition('.')[0] for name in sys.modules})"
        command = [sys.executable, "-c", loaded]
        modules = set(subprocess.run(command, capture_output=True, check=True, text=True).stdout.split())
        assert "msgspec" in modules
        assert not modules & {"litestar", "openai", "infrastructure", "sqlalchemy", "uvicorn"}

    def test_it_leaves_ctrl_c_to_its_parent_and_goes_when_the_parent_is_gone(self) -> None:
        port = free_port()
        with start_child(port) as process:
            assert httpx2.get(f"http://127.0.0.1:{port}/", trust_env=False).status_code == 401
            process.send_signal(signal.SIGINT)
            assert httpx2.get(f"http://127.0.0.1:{port}/", trust_env=False).status_code == 401
            output = process.communicate(timeout=5)  # closes its standard input first
        assert (process.returncode, *output) == (0, b"", b"")
        assert not accepts(port)

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, -signal.SIGTERM)])
    def test_alone_it_stops_on_a_signal(self, number: signal.Signals, code: int) -> None:
        port = free_port()
        with start(ALONE, port) as process:
            process.stdin.close()  # means nothing here
            block_until(lambda: accepts(port), within=5)
            assert httpx2.get(f"http://127.0.0.1:{port}/", trust_env=False).status_code == 401
            process.send_signal(number)
            assert process.wait(timeout=5) == code
            assert process.stderr.read() == b""

    def test_a_taken_port_is_told_in_one_line(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with start(CHILD, port) as process:
                _, complaints = process.communicate(timeout=5)
        assert process.returncode == 1
        assert complaints.decode() == f"demo upstream: cannot listen on 127.0.0.1:{port}: the port is taken\n"

    def test_without_a_key_it_does_not_start(self) -> None:
        with start(CHILD, free_port()) as process:
            _, complaints = process.communicate(b"\n", timeout=5)
        assert (process.returncode, complaints) == (1, b"demo upstream: there is no key\n")


class TestScripted:
    async def test_the_echo_tells_what_arrived(self, up: ScriptedUpstream) -> None:
        async with azure(up.origin) as classic, v1(up.origin, key="other-key-9876") as plain:
            by_azure = await classic.chat.completions.create(model="gpt-4", messages=HELLO)
            by_v1 = await plain.chat.completions.create(model="gpt-5", messages=HELLO)
        echo = f"deployment=gpt-4 api-version={API_VERSION} key=1234"
        assert by_azure.choices[0].message.content == echo
        assert by_v1.choices[0].message.content == "deployment=gpt-5 api-version=none key=9876"
        first, second = up.requests
        assert (first.method, first.path) == ("POST", "/openai/deployments/gpt-4/chat/completions")
        assert (first.query, first.headers["api-key"]) == ({"api-version": API_VERSION}, KEY)
        assert first.json == {"model": "gpt-4", "messages": HELLO}
        assert first.at < second.at
        await wait_until(lambda: up.finished == 2, within=2)
        assert (up.started, up.aborted, up.live) == (2, 0, 0)

    async def test_the_echo_streams_as_many_chunks_as_set(self, up: ScriptedUpstream) -> None:
        up.stream_chunks = 20
        async with azure(up.origin) as client:
            chunks = await streamed(client)
        assert len(chunks) == 20 + 2
        assert text_of(chunks).startswith("deployment=gpt-4 ")
        assert text_of(chunks).endswith(" 20")

    async def test_a_status_comes_before_a_success(self, up: ScriptedUpstream) -> None:
        up.script(Status(429, headers={"retry-after": "0"}), Reply("at last"))
        async with azure(up.origin, max_retries=1) as client:
            answer = await client.chat.completions.create(model="gpt-4", messages=HELLO)
        assert answer.choices[0].message.content == "at last"
        assert len(up.requests) == 2

    async def test_a_deployment_has_its_own_script(self, up: ScriptedUpstream) -> None:
        up.script(Reply("for all"))
        up.script(Status(503), deployment="gpt-5")
        async with azure(up.origin) as client:
            with pytest.raises(openai.InternalServerError, match="503"):
                await client.chat.completions.create(model="gpt-5", messages=HELLO)
            assert text_of(await streamed(client)) == "for all"

    async def test_a_held_stream_waits_after_its_first_chunk(self, up: ScriptedUpstream) -> None:
        hold = Event()
        up.script(Stream(["one ", "two ", "three"], hold=hold))
        async with azure(up.origin) as client:
            stream = await client.chat.completions.create(model="gpt-4", messages=HELLO, stream=True)
            first = [await anext(stream), await anext(stream)]
            assert (text_of(first), up.live) == ("one ", 1)
            hold.set()
            assert text_of([chunk async for chunk in stream]) == "two three"

    async def test_a_client_that_leaves_mid_stream_is_counted(self, up: ScriptedUpstream) -> None:
        up.script(Stream(["one ", "two"], hold=Event()))
        async with azure(up.origin) as client:
            stream = await client.chat.completions.create(model="gpt-4", messages=HELLO, stream=True)
            await anext(stream)
            assert (up.live, up.aborted) == (1, 0)
            await stream.close()
            await wait_until(lambda: up.aborted == 1, within=0.2)
        assert (up.live, up.finished) == (0, 0)

    async def test_a_client_that_gives_up_waiting_is_counted(self, up: ScriptedUpstream) -> None:
        up.script(Hang())
        async with azure(up.origin) as client:
            with pytest.raises(openai.APITimeoutError):
                await client.chat.completions.create(model="gpt-4", messages=HELLO, timeout=0.1)
            await wait_until(lambda: up.aborted == 1, within=0.2)

    async def test_a_hanging_call_is_released(self, up: ScriptedUpstream) -> None:
        hang = Hang()
        up.script(hang)
        hang.release.set()
        async with azure(up.origin) as client:
            assert text_of(await streamed(client)).startswith("deployment=gpt-4 ")

    def test_it_stops_while_a_call_hangs(self) -> None:
        call = b"POST /openai/v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
        with closing(socket.socket()) as client:
            with ScriptedUpstream() as up:
                up.script(Hang())
                client.connect(("127.0.0.1", int(up.origin.rpartition(":")[2])))
                client.sendall(call)
                block_until(lambda: up.live == 1, within=2)
                began = time.monotonic()
            assert time.monotonic() - began < 2

    async def test_a_cut_stream_raises_in_the_sdk(self, up: ScriptedUpstream) -> None:
        up.script(CutMidStream(after=2))
        async with azure(up.origin) as client:
            stream = await client.chat.completions.create(model="gpt-4", messages=HELLO, stream=True)
            assert text_of([await anext(stream) for _ in range(3)]) == "chunk 1 chunk 2 "
            with pytest.raises(openai.APIConnectionError):
                await anext(stream)
        await wait_until(lambda: up.finished == 1, within=2)

    async def test_a_cut_answer_raises_in_the_sdk(self, up: ScriptedUpstream) -> None:
        up.script(CutMidStream())
        async with azure(up.origin) as client:
            with pytest.raises(openai.APIConnectionError):
                await client.chat.completions.create(model="gpt-4", messages=HELLO)

    async def test_the_sdk_takes_an_end_without_done_for_success(self, up: ScriptedUpstream) -> None:
        up.script(EndWithoutDone(after=2))
        async with azure(up.origin) as client:
            chunks = await streamed(client)
        assert text_of(chunks) == "chunk 1 chunk 2 "
        assert {chunk.choices[0].finish_reason for chunk in chunks} == {None}

    async def test_an_error_in_a_stream_raises_in_the_sdk(self, up: ScriptedUpstream) -> None:
        up.script(ErrorFrame(after=1))
        async with azure(up.origin) as client:
            with pytest.raises(openai.APIError, match="The server had an error"):
                await streamed(client)

    async def test_raw_is_sent_as_it_is(self, up: ScriptedUpstream) -> None:
        up.script(Raw(200, {"content-type": "text/html"}, b"<h1>not JSON</h1>"))
        async with httpx2.AsyncClient(trust_env=False) as http:
            answer = await http.post(f"{up.origin}/openai/v1/chat/completions", json={})
        assert (answer.headers["content-type"], answer.content) == ("text/html", b"<h1>not JSON</h1>")

    async def test_a_wait_that_fails_says_so(self) -> None:
        with pytest.raises(AssertionError, match="within"):
            await wait_until(lambda: False, within=0.01)
