/** A conversation and what becomes of it; pure. */
import type { Turn } from "../api/chat";

export type Outcome = "streaming" | "done" | "stopped" | "interrupted" | "cut" | "failed";

export interface Failure {
  readonly title: string;
  readonly detail: string;
  readonly requestId: string;
  /** Seconds that the provider asks to wait. */
  readonly wait?: number | undefined;
}

export interface Question {
  readonly role: "user";
  readonly id: string;
  readonly text: string;
  readonly at: number;
}

export interface Answer {
  readonly role: "assistant";
  readonly id: string;
  readonly text: string;
  readonly at: number;
  readonly model: string;
  /** Of the configuration that answered; null before it is known. */
  readonly version: number | null;
  readonly outcome: Outcome;
  /** Seconds until the last word. */
  readonly seconds: number;
  readonly tokens: number | null;
  /** Whether the model stopped at its token limit. */
  readonly atLimit: boolean;
  readonly failure: Failure | null;
}

export type Message = Question | Answer;

export interface Settings {
  readonly system: string;
  readonly temperature: number | null;
  readonly maxTokens: number | null;
}

export interface Conversation {
  readonly id: string;
  readonly title: string;
  /** Whether a person named it. */
  readonly named: boolean;
  readonly model: string | null;
  readonly settings: Settings;
  readonly messages: readonly Message[];
  readonly at: number;
}

export const NO_SETTINGS: Settings = { system: "", temperature: null, maxTokens: null };

let count = 0;
export const newId = (): string =>
  `${Date.now().toString(36)}${(count++).toString(36)}${Math.random().toString(36).slice(2, 8)}`;

export function begin(model: string | null): Conversation {
  return {
    id: newId(),
    title: "New chat",
    named: false,
    model,
    settings: NO_SETTINGS,
    messages: [],
    at: Date.now(),
  };
}

export function asked(conversation: Conversation, text: string, model: string): Conversation {
  const at = Date.now();
  const question: Question = { role: "user", id: newId(), text, at };
  const messages = [...conversation.messages, question, pending(model)];
  const title = conversation.named || conversation.messages.length > 0 ? conversation.title : titleOf(text);
  return { ...conversation, title, model, messages, at };
}

/** The same without a message and what follows it; with a fresh answer to come when it was an answer. */
export function regenerated(conversation: Conversation, id: string, model: string): Conversation {
  const messages = [...before(conversation, id), pending(model)];
  return { ...conversation, model, messages, at: Date.now() };
}

export function without(conversation: Conversation, id: string): Conversation {
  return { ...conversation, messages: before(conversation, id) };
}

export function changed(conversation: Conversation, id: string, by: Partial<Answer>): Conversation {
  const messages = conversation.messages.map(message =>
    message.id === id && message.role === "assistant" ? { ...message, ...by } : message,
  );
  return { ...conversation, messages };
}

/** What was streaming when the page went away. */
export function interrupted(conversation: Conversation): Conversation {
  const messages = conversation.messages.map(message =>
    message.role === "assistant" && message.outcome === "streaming"
      ? { ...message, outcome: "interrupted" as const }
      : message,
  );
  return { ...conversation, messages };
}

/** What the model is told: everything before an answer, without answers that never came. */
export function turns(conversation: Conversation, upTo: string): Turn[] {
  const { system } = conversation.settings;
  const told: Turn[] = system ? [{ role: "system", content: system }] : [];
  for (const message of before(conversation, upTo)) {
    if (message.text !== "") told.push({ role: message.role, content: message.text });
  }
  return told;
}

export function asMarkdown({ title, messages }: Conversation): string {
  const told = messages.map(message =>
    message.role === "user"
      ? `## You\n\n${message.text}`
      : `## ${message.model}${message.version === null ? "" : ` v${message.version}`}\n\n${message.text}`,
  );
  return `# ${title}\n\n${told.join("\n\n")}\n`;
}

function before(conversation: Conversation, id: string): Message[] {
  const place = conversation.messages.findIndex(message => message.id === id);
  return conversation.messages.slice(0, place < 0 ? undefined : place);
}

function pending(model: string): Answer {
  return {
    role: "assistant",
    id: newId(),
    text: "",
    at: Date.now(),
    model,
    version: null,
    outcome: "streaming",
    seconds: 0,
    tokens: null,
    atLimit: false,
    failure: null,
  };
}

function titleOf(text: string): string {
  const line = text.trim().split("\n")[0] ?? "";
  return line.length > 48 ? `${line.slice(0, 46).trimEnd()}...` : line || "New chat";
}
