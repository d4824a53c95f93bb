/** What happened, as a person would tell it. */
import type { Entry, FieldChange, Value } from "../api/types";
import { label, valueText } from "./fields";
import { visible } from "./visible";

const TYPES: Readonly<Record<string, string>> = {
  "model.created": "created",
  "model.updated": "changed",
  "model.deleted": "deleted",
  "model.rolled_back": "rolled back",
  "model.restored": "brought back",
  "default.changed": "changed the default",
};

export const EVENT_TYPES: readonly string[] = Object.keys(TYPES);

export const typeText = (type: string): string => TYPES[type] ?? type;

export const SOURCES: Readonly<Record<string, string>> = {
  ui: "browser",
  api: "API",
  cli: "command line",
  import: "import",
  system: "system",
};

/** The deed without its doer: "raised max timeout 60 s to 120 s". With `subject`, it also names the model. */
export function deed(entry: Entry, subject: boolean): string {
  const model = subject && entry.model_id ? ` ${entry.model_id}` : "";
  const to = entry.to_version === undefined ? "" : `v${entry.to_version}`;
  switch (entry.type) {
    case "model.created":
      return `created${model || " it"}`;
    case "model.deleted":
      return `deleted${model || " it"}`;
    case "model.restored":
      return `brought${model || " it"} back${to && ` as ${to}`}`;
    case "model.rolled_back":
      return `rolled${model} back to ${to}`;
    case "default.changed":
      return entry.model_id ? `made ${entry.model_id} the default` : "took the default away";
    default:
      return changesText(entry.changes, subject ? (entry.model_id ?? "") : "");
  }
}

function changesText(changes: readonly FieldChange[], model: string): string {
  const [first, second, ...more] = changes;
  if (!first) return model ? `recorded ${model} anew` : "recorded it anew";
  const where = model && ` in ${model}`;
  if (!second && model && first.field === "enabled") return changeText(first).replace("it", model);
  if (!second) return changeText(first) + where;
  const names = [first, second, ...more].map(change => label(change.field).toLowerCase());
  if (more.length > 2)
    return `changed ${names.slice(0, 2).join(", ")} and ${names.length - 2} more fields${where}`;
  return `changed ${names.slice(0, -1).join(", ")} and ${names.at(-1)}${where}`;
}

/** One change: "raised max timeout 60 s to 120 s". */
export function changeText({ field, op, old, new: next }: FieldChange): string {
  const name = label(field).toLowerCase();
  if (field === "enabled") return next === false ? "disabled it" : "enabled it";
  if (op === "added") return `set ${name} to ${short(field, next)}`;
  if (op === "removed") return `removed ${name}, which was ${short(field, old)}`;
  if (typeof old === "boolean") return `turned ${name} ${next ? "on" : "off"}`;
  const verb =
    typeof old === "number" && typeof next === "number" ? (next > old ? "raised" : "lowered") : "changed";
  return `${verb} ${name} ${short(field, old)} to ${short(field, next)}`;
}

function short(field: string, value: Value | undefined): string {
  const text = valueText(field, value).replaceAll("\n", " ");
  const told = text.length > 60 ? `${text.slice(0, 57)}...` : text;
  return typeof value === "string" && value !== "" ? `“${told}”` : told;
}

/** Who: the name at the time of recording, and what kind it is where that says more. */
export function who(entry: Pick<Entry, "actor">): string {
  const { name, kind } = entry.actor;
  return kind === "token" ? `token ${visible(name)}` : visible(name);
}
