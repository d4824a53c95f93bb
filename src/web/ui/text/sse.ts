/** Server-sent events out of a stream of bytes (WHATWG HTML, section 9.2). */

export interface ServerEvent {
  readonly id: string | null;
  readonly type: string;
  readonly data: string;
}

/** Takes text as it comes, and answers the events that are complete with it. */
export class EventParser {
  private rest = "";
  private id: string | null = null;
  private type = "";
  private data: string[] = [];

  push(text: string): ServerEvent[] {
    const events: ServerEvent[] = [];
    const lines = (this.rest + text).split(/\r\n|\n|\r(?!$)/);
    this.rest = lines.pop() ?? "";
    for (const line of lines) {
      const event = line === "" ? this.dispatch() : this.take(line);
      if (event) events.push(event);
    }
    return events;
  }

  private take(line: string): null {
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") this.data.push(value);
    else if (field === "event") this.type = value;
    else if (field === "id" && !value.includes("\0")) this.id = value;
    return null;
  }

  private dispatch(): ServerEvent | null {
    const { data, type } = this;
    this.data = [];
    this.type = "";
    return data.length > 0 ? { id: this.id, type: type || "message", data: data.join("\n") } : null;
  }
}

/** Every event of a body, until it ends or is cut. */
export async function* serverEvents(body: ReadableStream<Uint8Array>): AsyncGenerator<ServerEvent> {
  const parser = new EventParser();
  const reader = body
    .pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>)
    .getReader();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      yield* parser.push(value);
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
