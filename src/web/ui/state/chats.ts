/** The conversations of this browser, and the answers that stream into them. */
import { answer, Cut } from "../api/chat";
import { Refused } from "../api/client";
import type { Answer, Conversation, Failure } from "./conversation";
import * as told from "./conversation";
import { say } from "./notices";
import * as shelf from "./shelf";
import { store } from "./store";

/** By id; null before they are read. */
export const chats = store<ReadonlyMap<string, Conversation> | null>(null);

const running = new Map<string, AbortController>();
const tabs = "BroadcastChannel" in globalThis ? new BroadcastChannel("model-ledger-chats") : null;
/** Milliseconds between two saves of an answer that streams in. */
const SAVE_EVERY = 400;
const resting = new Map<string, number>();
const unsaved = new Set<string>();

export async function readChats(): Promise<void> {
  const kept = await shelf.readAll().catch(() => []);
  chats.set(new Map(kept.map(one => [one.id, told.interrupted(one)])));
  addEventListener("pagehide", () => {
    for (const id of unsaved) void save(id);
  });
  if (tabs) tabs.onmessage = ({ data }: MessageEvent<string>) => void takeFromOtherTab(data);
}

export function begin(model: string | null): Conversation {
  const made = told.begin(model);
  keep(made);
  return made;
}

export function update(id: string, change: (before: Conversation) => Conversation): Conversation | null {
  const before = chats.get()?.get(id);
  if (!before) return null;
  const after = change(before);
  keep(after);
  return after;
}

export function rename(id: string, title: string): void {
  update(id, before => ({ ...before, title: title.trim() || before.title, named: true }));
}

/** Forget a conversation; answers how to take that back. */
export function forget(id: string): () => void {
  stop(id);
  const gone = chats.get()?.get(id);
  const rest = new Map(chats.get());
  rest.delete(id);
  chats.set(rest);
  void shelf.remove(id).then(() => tabs?.postMessage(id));
  return () => gone && keep(gone);
}

export function ask(id: string, text: string, model: string): void {
  const after = update(id, before => told.asked(before, text, model));
  if (after) void run(after);
}

export function regenerate(id: string, answerId: string, model: string): void {
  stop(id);
  const after = update(id, before => told.regenerated(before, answerId, model));
  if (after) void run(after);
}

/** Ask again with other words, in the place of a question and everything after it. */
export function resend(id: string, questionId: string, text: string, model: string): void {
  stop(id);
  const after = update(id, before => told.asked(told.without(before, questionId), text, model));
  if (after) void run(after);
}

export function stop(id: string): void {
  running.get(id)?.abort();
}

async function run(conversation: Conversation): Promise<void> {
  const pending = conversation.messages.at(-1);
  if (pending?.role !== "assistant") return;
  const control = new AbortController();
  running.set(conversation.id, control);
  const begun = performance.now();
  let text = "";
  let frame = 0;
  const show = (by: Partial<Answer>) => {
    const seconds = (performance.now() - begun) / 1000;
    update(conversation.id, before => told.changed(before, pending.id, { seconds, ...by }));
  };
  const draw = () => {
    frame = 0;
    show({ text });
  };
  const { temperature, maxTokens } = conversation.settings;
  const asked = {
    model: pending.model,
    messages: told.turns(conversation, pending.id),
    ...(temperature === null ? {} : { temperature }),
    ...(maxTokens === null ? {} : { max_tokens: maxTokens }),
  };
  say(`${pending.model} is answering`);
  let end: Partial<Answer>;
  try {
    for await (const piece of answer(asked, control.signal)) {
      if ("text" in piece) {
        text += piece.text;
        frame ||= requestAnimationFrame(draw);
      } else if ("origin" in piece) show({ model: piece.origin.model, version: piece.origin.version });
      else if ("tokens" in piece) show({ tokens: piece.tokens });
      else if (piece.finish === "length") show({ atLimit: true });
    }
    end = { outcome: "done" };
  } catch (error) {
    end = control.signal.aborted ? { outcome: "stopped" } : failed(error as Error);
  }
  cancelAnimationFrame(frame);
  if (running.get(conversation.id) === control) running.delete(conversation.id);
  show({ text, ...end });
  say(spokenEnd(text, end));
}

function failed(error: Error): Partial<Answer> {
  if (error instanceof Refused) {
    const { title, detail, request_id: requestId } = error.problem;
    return { outcome: "failed", failure: { title: cause(error) ?? title, detail, requestId } };
  }
  const cut = error instanceof Cut;
  const title = cut ? "The answer was cut" : "The call did not get through";
  const failure: Failure = { title, detail: error.message, requestId: "" };
  return { outcome: cut ? "cut" : "failed", failure };
}

function cause(error: Refused): string | null {
  switch (error.status) {
    case 404:
      return "This model is not in service";
    case 429:
      return "The provider asks to slow down";
    case 502:
      return "The provider failed";
    case 504:
      return "The provider took too long";
    case 400:
      return "The request was refused";
    default:
      return null;
  }
}

function spokenEnd(text: string, { outcome }: Partial<Answer>): string {
  const words = text.split(/\s+/).filter(Boolean).length;
  if (outcome === "done") return `Answer ready, ${words} words`;
  return outcome === "stopped" ? "Answer stopped" : "The answer failed";
}

function keep(conversation: Conversation): void {
  chats.set(new Map(chats.get() ?? []).set(conversation.id, conversation));
  const { id } = conversation;
  if (running.has(id)) pace(id);
  else void save(id);
}

/** Save at once, then at most now and then, and in the end what came last. */
function pace(id: string): void {
  if (resting.has(id)) {
    unsaved.add(id);
    return;
  }
  const rest = () => {
    resting.delete(id);
    if (unsaved.has(id)) pace(id);
  };
  resting.set(id, setTimeout(rest, SAVE_EVERY));
  void save(id);
}

async function save(id: string): Promise<void> {
  unsaved.delete(id);
  const conversation = chats.get()?.get(id);
  if (!conversation) return;
  await shelf.write(conversation).catch(() => {});
  tabs?.postMessage(id);
}

async function takeFromOtherTab(id: string): Promise<void> {
  if (running.has(id)) return;
  const found = await shelf.read(id).catch(() => undefined);
  const next = new Map(chats.get());
  if (found) next.set(id, found);
  else next.delete(id);
  chats.set(next);
}
