/** The models' routes in the page's words. */
import { ask, type Query } from "./client";
import type { components } from "./generated/contract";
import type { Blame, Conflict, Difference, Entry, FieldChange, Fields, Model, Page, Receipt } from "./types";

type Schemas = components["schemas"];

const MODELS = "/api/config/models";

export const path = (id: string, ...more: string[]) => [MODELS, encodeURIComponent(id), ...more].join("/");

export interface ChangeOptions {
  /** The version that the change builds on; left out, it wins over whatever is there. */
  readonly version?: number | undefined;
  readonly reason?: string | undefined;
}

const change = ({ version, reason }: ChangeOptions) => ({
  headers: {
    "Idempotency-Key": crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`,
    ...(version === undefined ? {} : { "If-Match": `"${version}"` }),
  },
  query: { reason: reason?.trim() },
});

export const list = () => ask<Record<string, Model>>(MODELS);
export const read = (id: string, query: Query = {}) => ask<Model>(path(id), { query });

export const create = (id: string, body: Fields, reason?: string) =>
  ask<Receipt>(path(id), { method: "POST", body, ...change({ reason }) });

export const replace = (id: string, body: Fields, options: ChangeOptions) =>
  ask<Receipt>(path(id), { method: "PUT", body, ...change(options) });

export function patch(id: string, body: Fields, options: ChangeOptions = {}): Promise<Receipt> {
  const { headers, query } = change(options);
  const typed = { ...headers, "Content-Type": "application/merge-patch+json" };
  return ask(path(id), { method: "PATCH", body, headers: typed, query });
}

export function remove(id: string, newDefault: string | null, options: ChangeOptions): Promise<Receipt> {
  const { headers, query } = change(options);
  return ask(path(id), { method: "DELETE", headers, query: { ...query, new_default: newDefault } });
}

export const setDefault = (model_id: string | null, reason?: string) =>
  ask<Receipt>("/api/config/default", { method: "PUT", body: { model_id }, ...change({ reason }) });

export const restore = (id: string, reason?: string) =>
  ask<Receipt>(path(id, "restore"), {
    method: "POST",
    body: { reason: reason?.trim() || null },
    ...change({}),
  });

export const history = (id: string, query: Query = {}) => ask<Page>(path(id, "history"), { query });
export const blame = (id: string) => ask<Record<string, Blame>>(path(id, "blame"));
export const diff = (id: string, from: number, to: number) =>
  ask<Difference>(path(id, "diff"), { query: { from, to } });

export type WayBack = "rollback" | "undo";

const wayBody = (way: WayBack, version: number) =>
  way === "rollback" ? { to_version: version } : { version };

/** What a way back would do, and what stands in its way. */
export interface Preview {
  /** The version that it would start from. */
  readonly current: number;
  readonly changes: readonly FieldChange[];
  /** What the version has and a rollback does not bring back. */
  readonly stays: readonly FieldChange[];
  readonly problems: Schemas["Preview"]["problems"];
  /** The fields that were changed again since the change that is to be undone. */
  readonly conflicts: readonly Conflict[];
}

export async function preview(way: WayBack, id: string, version: number): Promise<Preview> {
  const asked = { method: "POST", query: { dry_run: true }, body: wayBody(way, version) } as const;
  if (way === "undo") {
    const { current_version, ...told } = await ask<Schemas["UndoPreview"]>(path(id, way), asked);
    return { ...told, current: current_version, stays: [] };
  }
  const { from_version, ...told } = await ask<Schemas["Preview"]>(path(id, way), asked);
  return { ...told, current: from_version, conflicts: [] };
}

export function goBack(way: WayBack, id: string, version: number, options: ChangeOptions): Promise<Receipt> {
  const { headers } = change(options);
  const body = { ...wayBody(way, version), reason: options.reason?.trim() || null };
  return ask(path(id, way), { method: "POST", body, headers });
}

export const events = (query: Query) => ask<Page>("/api/config/events", { query });

export async function deleted(): Promise<Entry[]> {
  const page = await events({ type: "model.deleted", limit: 200 });
  const newest = new Map<string, Entry>();
  for (const entry of page.data) {
    if (entry.model_id && !newest.has(entry.model_id)) newest.set(entry.model_id, entry);
  }
  return [...newest.values()];
}
