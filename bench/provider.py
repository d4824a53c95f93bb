"""A provider in a process of its own: it answers at once, plain and streamed (50 chunks).

A deployment named `slow` sends its chunks 10 ms apart, one named `idle` a chunk each second for 20 s.
"""

import asyncio
import json
import sys

CHUNKS = 50
PAUSES = {b"slow": (0.01, CHUNKS), b"idle": (1.0, 20)}
PLAIN = json.dumps(
    {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1,
        "model": "bench",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "word " * 80}}
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": 80, "total_tokens": 90},
    }
).encode()


def chunk(delta: dict[str, str], finish: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    event = {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "bench",
        "choices": [choice],
    }
    return b"data: " + json.dumps(event).encode() + b"\n\n"


STREAM = [
    *(chunk({"content": "word "}, None) for _ in range(CHUNKS - 1)),
    chunk({}, "stop"),
    b"data: [DONE]\n\n",
]
PLAIN_ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(PLAIN)
) + PLAIN
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
PARTS = [b"%x\r\n%s\r\n" % (len(part), part) for part in [*STREAM, b""]]
STREAM_ANSWER = STREAM_HEAD + b"".join(PARTS)


class Upstream(asyncio.Protocol):
    """Just enough HTTP/1.1 for one client that sends whole requests with a content length."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
            if len(self.buffer) < end + 4 + length:
                return
            body = self.buffer[end + 4 : end + 4 + length]
            self.buffer = self.buffer[end + 4 + length :]
            asked = body.replace(b" ", b"")
            pauses = [pause for name, pause in PAUSES.items() if b'"model":"%b"' % name in asked]
            if b'"stream":true' not in asked:
                self.transport.write(PLAIN_ANSWER)
            elif pauses:
                self.transport.write(STREAM_HEAD)
                self.send_slowly(*pauses[0])
            else:
                self.transport.write(STREAM_ANSWER)

    def send_slowly(self, pause: float, left: int) -> None:
        if self.transport.is_closing():
            return
        if left == 1:
            self.transport.write(b"".join(PARTS[-3:]))
            return
        self.transport.write(PARTS[0])
        asyncio.get_running_loop().call_later(pause, self.send_slowly, pause, left - 1)


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=2_000)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(int(sys.argv[1])))
