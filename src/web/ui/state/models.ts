/** The live models, kept current by the feed. */
import { list } from "../api/models";
import type { Entry, Model } from "../api/types";
import { store } from "./store";

export type Listing =
  | { readonly is: "loading" }
  | { readonly is: "failed"; readonly error: Error }
  | { readonly is: "ready"; readonly byId: ReadonlyMap<string, Model> };

export const models = store<Listing>({ is: "loading" });

let reading: Promise<void> | null = null;

/** Read the list anew; calls that come meanwhile share the answer. */
export function readModels(): Promise<void> {
  reading ??= load().finally(() => {
    reading = null;
  });
  return reading;
}

async function load(): Promise<void> {
  try {
    models.set({ is: "ready", byId: new Map(Object.entries(await list())) });
  } catch (error) {
    if (models.get().is !== "ready") models.set({ is: "failed", error: error as Error });
  }
}

/** Take in what the feed told; what the list knows already changes nothing. */
export function follow(entry: Entry): void {
  const now = models.get();
  if (now.is === "ready") models.set({ is: "ready", byId: applied(now.byId, entry) });
}

export function applied(byId: ReadonlyMap<string, Model>, entry: Entry): ReadonlyMap<string, Model> {
  if (entry.type === "default.changed") {
    return new Map([...byId].map(([id, model]) => [id, { ...model, is_default: id === entry.model_id }]));
  }
  const id = entry.model_id;
  if (id === null) return byId;
  const known = byId.get(id);
  if (known && known.position >= entry.position) return byId;
  const next = new Map(byId);
  if (entry.type === "model.deleted") next.delete(id);
  else if (entry.config) next.set(id, viewOf(entry, known?.is_default ?? false));
  return next;
}

function viewOf(entry: Entry, is_default: boolean): Model {
  const { version, position, at, actor, config } = entry;
  return { ...config, version, position, is_default, updated_at: at, updated_by: actor } as Model;
}

/** The default model's id; null when none is. */
export function defaultOf(byId: ReadonlyMap<string, Model>): string | null {
  for (const [id, model] of byId) if (model.is_default) return id;
  return null;
}
