/** One answer of a model, as it streams in through the gateway. */
import { serverEvents } from "../text/sse";
import { send } from "./client";

export interface Turn {
  readonly role: "system" | "user" | "assistant";
  readonly content: string;
}

export interface Asked {
  readonly model: string;
  readonly messages: readonly Turn[];
  readonly temperature?: number | undefined;
  readonly max_tokens?: number | undefined;
}

/** Which configuration answers, as the gateway says before the first word. */
export interface Origin {
  readonly model: string;
  readonly version: number | null;
  readonly requestId: string;
}

export type Piece =
  | { readonly origin: Origin }
  | { readonly text: string }
  | { readonly finish: string }
  | { readonly tokens: number };

interface Chunk {
  readonly choices?: readonly {
    readonly delta?: { readonly content?: string | null };
    readonly finish_reason?: string | null;
  }[];
  readonly usage?: { readonly completion_tokens?: number } | null;
  readonly error?: { readonly message?: string; readonly code?: string | null };
}

/** The answer broke off: what came so far is all there is. */
export class Cut extends Error {}

export async function* answer(asked: Asked, signal: AbortSignal): AsyncGenerator<Piece> {
  const body = { ...asked, stream: true, stream_options: { include_usage: true } };
  const headers = { Accept: "text/event-stream" };
  const response = await send("/v1/chat/completions", { method: "POST", body, headers, signal });
  const told = (name: string) => response.headers.get(name);
  const version = told("x-model-ledger-version");
  yield {
    origin: {
      model: told("x-model-ledger-model") ?? asked.model,
      version: version === null ? null : Number(version),
      requestId: told("x-request-id") ?? "",
    },
  };
  let complete = false;
  for await (const event of serverEvents(response.body ?? new ReadableStream())) {
    if (event.data === "[DONE]") {
      complete = true;
      break;
    }
    const chunk = JSON.parse(event.data) as Chunk;
    if (chunk.error) throw new Cut(chunk.error.message ?? "The provider broke the answer off.");
    const choice = chunk.choices?.[0];
    if (choice?.delta?.content) yield { text: choice.delta.content };
    if (choice?.finish_reason) yield { finish: choice.finish_reason };
    if (chunk.usage?.completion_tokens) yield { tokens: chunk.usage.completion_tokens };
  }
  if (!complete) throw new Cut("The answer ended before it was complete.");
}
