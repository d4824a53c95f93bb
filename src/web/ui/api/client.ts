/** The one way to the REST API: JSON in, JSON out, and every failure as a `Refused` or an `Unreachable`. */
import type { ProblemDetails } from "./types";

export type Query = Readonly<Record<string, string | number | boolean | null | undefined>>;

export interface Ask {
  readonly method?: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  readonly query?: Query;
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
}

/** Proves to the server that the page asks, and no other site through the browser. */
export const OWN: Readonly<Record<string, string>> = { "X-Model-Ledger-Request": "1" };

/** The server's no, in its own words. */
export class Refused extends Error {
  constructor(readonly problem: ProblemDetails) {
    super(problem.detail || problem.title);
  }

  get status(): number {
    return this.problem.status;
  }

  /** The stable name of the problem, such as `model-not-found`. */
  get kind(): string {
    return this.problem.type.split(":").at(-1) ?? "";
  }
}

/** No answer at all: the network, or a server that is away. */
export class Unreachable extends Error {}

let signedOut = (): void => {};

/** Tell who wants to know that the session is over. */
export function onSignedOut(tell: () => void): void {
  signedOut = tell;
}

export async function ask<T>(path: string, asked: Ask = {}): Promise<T> {
  const answer = await send(path, asked);
  if (answer.status === 204) return undefined as T;
  return (await answer.json()) as T;
}

export async function send(path: string, { method = "GET", query, body, headers, signal }: Ask = {}) {
  const sent: Record<string, string> = { Accept: "application/json", ...OWN, ...headers };
  const init: RequestInit = { method, headers: sent, credentials: "same-origin" };
  if (signal) init.signal = signal;
  if (body !== undefined) {
    sent["Content-Type"] ??= "application/json";
    init.body = JSON.stringify(body);
  }
  const answer = await reach(path + queryText(query), init);
  if (!answer.ok) throw await refusal(answer, path);
  return answer;
}

/** The query of an address; what is empty is left out. */
export function queryText(query: Query = {}): string {
  const given = Object.entries(query).filter(
    ([, value]) => value !== undefined && value !== null && value !== "",
  );
  const text = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return text && `?${text}`;
}

async function reach(path: string, init: RequestInit): Promise<Response> {
  try {
    return await fetch(path, init);
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new Unreachable("Model Ledger does not answer. Is the service running, and this device online?");
  }
}

async function refusal(answer: Response, path: string): Promise<Refused> {
  const problem = await told(answer);
  if (answer.status === 401 && path !== "/api/session") signedOut();
  return new Refused(problem);
}

/** The problem that an answer carries, from /v1 in OpenAI's shape; made up where there is none. */
async function told(answer: Response): Promise<ProblemDetails> {
  const request_id = answer.headers.get("x-request-id") ?? "";
  const made = { type: "about:blank", title: `The server answered ${answer.status}`, status: answer.status };
  try {
    const body = await answer.json();
    if (body?.error?.message) {
      const { message, code } = body.error;
      return { ...made, type: `urn:openai:${code ?? body.error.type}`, detail: message, request_id };
    }
    return { ...made, detail: "", request_id, ...body };
  } catch {
    return { ...made, detail: "The answer was not one of Model Ledger's.", request_id };
  }
}
