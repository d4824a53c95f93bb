import { expect, test } from "vitest";
import { EventParser } from "../text/sse";

const STREAM =
  'retry: 2000\n\n: ping\n\nid: 7\nevent: model.updated\ndata: {"a":\ndata: 1}\n\ndata: [DONE]\r\n\r\n';
const EVENTS = [
  { id: "7", type: "model.updated", data: '{"a":\n1}' },
  { id: "7", type: "message", data: "[DONE]" },
];

test("events are told with their id, type and data; comments and empty ones are not", () => {
  expect(new EventParser().push(STREAM)).toEqual(EVENTS);
});

test("it does not matter where the stream is cut into pieces", () => {
  for (let size = 1; size < STREAM.length; size += 1) {
    const parser = new EventParser();
    const events = [];
    for (let at = 0; at < STREAM.length; at += size) events.push(...parser.push(STREAM.slice(at, at + size)));
    expect(events).toEqual(EVENTS);
  }
});
