/** A configuration while it is being edited: text as it is typed, until it is read as values. */
import type { Fields, Value } from "../api/types";
import { FIELD_ORDER } from "../text/fields";
import { LIMITS } from "../text/limits";

export interface Draft {
  readonly id: string;
  /** Every field by name: what stands in its control. */
  readonly texts: Readonly<Record<string, string>>;
}

/** What a new model begins with. */
const NEW: Fields = {
  name: "",
  max_tokens: 4096,
  supports_streaming: true,
  supports_temperature: true,
  api_version: "2025-01-01-preview",
};
/** A choice that may be left to the server: neither yes nor no. */
export const DERIVED = "";

export function newDraft(id: string, start: Fields): Draft {
  const initial = Object.fromEntries(
    Object.entries(LIMITS).flatMap(([field, { initial: value }]) =>
      value === undefined ? [] : [[field, value]],
    ),
  );
  return { id, texts: textsOf({ ...initial, ...NEW, ...start }) };
}

export const draftOf = (id: string, config: Fields): Draft => ({ id, texts: textsOf(config) });

function textsOf(config: Fields): Record<string, string> {
  return Object.fromEntries(Object.entries(config).map(([field, value]) => [field, textOf(value)]));
}

function textOf(value: Value): string {
  if (value === null) return "";
  return Array.isArray(value) ? value.join("\n") : String(value);
}

/** The fields that a provider's configuration can have. */
export function shownFields(provider: string): string[] {
  const foreign = provider === "openai" ? ["azure_endpoint", "api_version"] : ["base_url"];
  return [...FIELD_ORDER, ...Object.keys(LIMITS)].filter(
    (field, place, all) => field in LIMITS && !foreign.includes(field) && all.indexOf(field) === place,
  );
}

/** The configuration that the draft stands for; numbers that are none become NaN. Fields of `base` that the
    page does not know stay as they are. */
export function configOfDraft({ texts }: Draft, base: Fields): Fields {
  const config: Record<string, Value> = {};
  for (const [field, value] of Object.entries(base)) if (!(field in LIMITS)) config[field] = value;
  for (const field of shownFields(texts.provider ?? "azure")) {
    const value = valueFrom(field, texts[field] ?? "");
    if (value !== undefined) config[field] = value;
  }
  return config;
}

function valueFrom(field: string, text: string): Value | undefined {
  const rule = LIMITS[field];
  const trimmed = text.trim();
  switch (rule?.kind) {
    case "flag":
      return trimmed === DERIVED ? undefined : trimmed === "true";
    case "number":
    case "integer":
      return trimmed === "" ? undefined : Number(trimmed.replace(",", "."));
    case "list": {
      const items = trimmed.split(/[\s,]+/).filter(Boolean);
      return items.length > 0 ? items : undefined;
    }
    default:
      if (trimmed !== "") return field === "description" ? text : trimmed;
      if (rule?.nullable) return null;
      return rule?.initial === "" ? "" : undefined;
  }
}
