/**
 * The ledger's feed: one connection for a browser, whichever of its tabs holds the lock.
 *
 *     waits for the lock ──gets it──> leads: reads the stream, tells the other tabs
 *            └── listens to who leads ┘
 */
import { Refused, send } from "../api/client";
import type { Entry } from "../api/types";
import { serverEvents } from "../text/sse";
import { follow, readModels } from "./models";
import { store } from "./store";

export type Liveness = "connecting" | "live" | "away";

type Told =
  | { readonly entry: Entry }
  | { readonly liveness: Liveness }
  | { readonly again: true }
  | { readonly hello: true };

export const liveness = store<Liveness>("connecting");
/** The newest position that this page has seen. */
export const position = store(0);
export const newest = store<Entry | null>(null);

const LOCK = "model-ledger-feed";
const SILENCE = 40_000;
const PAUSE = 1_000;

export function startFeed(): () => void {
  const stop = new AbortController();
  const tabs = "BroadcastChannel" in window ? new BroadcastChannel(LOCK) : null;
  let leads = false;
  const tell = (told: Told) => {
    tabs?.postMessage(told);
    hear(told);
  };
  if (tabs) {
    tabs.onmessage = ({ data }: MessageEvent<Told>) => {
      if ("hello" in data) leads && tabs.postMessage({ liveness: liveness.get() } satisfies Told);
      else if (!leads) hear(data);
    };
  }
  const lead = () => {
    leads = true;
    return stay(tell, stop.signal);
  };
  void readModels();
  if (navigator.locks) {
    tabs?.postMessage({ hello: true } satisfies Told);
    navigator.locks.request(LOCK, { signal: stop.signal }, lead).catch(() => {});
  } else void lead();
  return () => {
    stop.abort();
    tabs?.close();
  };
}

function hear(told: Told): void {
  if ("liveness" in told) {
    liveness.set(told.liveness);
  } else if ("again" in told) {
    void readModels();
  } else if ("entry" in told) {
    position.set(Math.max(position.get(), told.entry.position));
    follow(told.entry);
    newest.set(told.entry);
  }
}

/** Read the stream, and come back to it whenever it ends. */
async function stay(tell: (told: Told) => void, stop: AbortSignal): Promise<void> {
  let last: string | null = null;
  while (!stop.aborted) {
    try {
      last = await once(last, tell, stop);
    } catch (error) {
      if (stop.aborted) return;
      if (error instanceof Refused && error.status === 401) return;
    }
    tell({ liveness: "away" });
    await new Promise(resume => setTimeout(resume, PAUSE * (1 + Math.random())));
  }
}

async function once(
  after: string | null,
  tell: (told: Told) => void,
  stop: AbortSignal,
): Promise<string | null> {
  const silent = new AbortController();
  let timer = setTimeout(() => silent.abort(), SILENCE);
  const headers = { Accept: "text/event-stream", ...(after === null ? {} : { "Last-Event-ID": after }) };
  let last = after;
  try {
    const signal = AbortSignal.any([stop, silent.signal]);
    const answer = await send("/api/config/events/stream", { headers, signal });
    if (!answer.body) return last;
    const alive = new TransformStream<Uint8Array, Uint8Array>({
      transform(chunk, out) {
        clearTimeout(timer);
        timer = setTimeout(() => silent.abort(), SILENCE);
        out.enqueue(chunk);
      },
    });
    tell({ liveness: "live" });
    tell({ again: true });
    for await (const event of serverEvents(answer.body.pipeThrough(alive))) {
      last = event.id ?? last;
      tell(event.type === "reset" ? { again: true } : { entry: JSON.parse(event.data) as Entry });
    }
  } catch (error) {
    if (error instanceof Refused || stop.aborted) throw error;
  } finally {
    clearTimeout(timer);
  }
  return last;
}
