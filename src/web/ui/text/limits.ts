/** The rules of a model's fields, as the server publishes them, and what a draft breaks of them. */
import contract from "../api/generated/model.json";
import type { Fields, Value } from "../api/types";

export interface Limit {
  readonly kind: "text" | "number" | "integer" | "flag" | "choice" | "list";
  readonly nullable: boolean;
  readonly minimum?: number;
  readonly exclusiveMinimum?: number;
  readonly maximum?: number;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly choices?: readonly string[];
  readonly description: string;
  readonly initial: Value | undefined;
}

interface Schema {
  readonly type?: string;
  readonly enum?: readonly string[];
  readonly anyOf?: readonly Schema[];
  readonly minimum?: number;
  readonly exclusiveMinimum?: number;
  readonly maximum?: number;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly description?: string;
  readonly default?: Value;
}

export const LIMITS: Readonly<Record<string, Limit>> = Object.fromEntries(
  Object.entries(contract.properties as Record<string, Schema>).map(([field, schema]) => [
    field,
    limit(schema),
  ]),
);

/** `/field` to what is wrong with it; empty when nothing is. The server has the last word. */
export function problems(id: string | null, draft: Fields): Record<string, string> {
  const found: Record<string, string> = {};
  if (id !== null && !/^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$/.test(id)) {
    found.model_id = id
      ? "Letters, digits and . _ : - only, beginning with a letter or digit"
      : "An id is needed";
  }
  for (const field of required(draft)) if (isBlank(draft[field])) found[field] = "This field is needed";
  for (const [field, value] of Object.entries(draft)) {
    const rule = LIMITS[field];
    const problem = rule && !found[field] ? broken(rule, value) : null;
    if (problem) found[field] = problem;
  }
  const { base_timeout: base, max_timeout: most } = draft;
  if (typeof base === "number" && typeof most === "number" && base > most && !found.base_timeout) {
    found.base_timeout = `Not above the max timeout (${most} s)`;
  }
  const address = draft.provider === "openai" ? "base_url" : "azure_endpoint";
  if (!found[address] && !/^https?:\/\/[^\s/?#]+[^\s?#]*$/.test(String(draft[address] ?? ""))) {
    found[address] = "An address that begins with https:// or http://, without query";
  }
  return found;
}

/** What a call may take at most: the rule of the server, with a prompt's length in tokens. */
export function timeoutFor(config: Fields, promptTokens: number, limitTokens?: number): number {
  const of = (field: string) => Number(config[field] ?? LIMITS[field]?.initial ?? 0);
  const tokens = promptTokens + (limitTokens ?? of("max_tokens"));
  return Math.min(of("max_timeout"), of("base_timeout") + of("token_factor") * tokens);
}

function required(draft: Fields): readonly string[] {
  const chosen = draft.provider === "openai" ? contract.then : contract.else;
  return [...contract.required, ...chosen.required];
}

const isBlank = (value: Value | undefined) =>
  value === undefined || (typeof value === "string" && value.trim() === "") || Number.isNaN(value);

function broken(rule: Limit, value: Value): string | null {
  if (value === null) return rule.nullable ? null : "This field is needed";
  if (typeof value === "number") return outOfRange(rule, value);
  if (typeof value === "string") {
    if (rule.choices && !rule.choices.includes(value)) return `One of ${rule.choices.join(", ")}`;
    if (rule.maxLength !== undefined && [...value].length > rule.maxLength) {
      return `At most ${rule.maxLength} characters`;
    }
  }
  return null;
}

function outOfRange(rule: Limit, value: number): string | null {
  if (!Number.isFinite(value)) return "A number is needed";
  if (rule.kind === "integer" && !Number.isInteger(value)) return "A whole number";
  if (rule.minimum !== undefined && value < rule.minimum) return `At least ${rule.minimum}`;
  if (rule.exclusiveMinimum !== undefined && value <= rule.exclusiveMinimum)
    return `More than ${rule.exclusiveMinimum}`;
  if (rule.maximum !== undefined && value > rule.maximum)
    return `At most ${rule.maximum.toLocaleString("en")}`;
  return null;
}

function limit(schema: Schema): Limit {
  const options = schema.anyOf ?? [schema];
  const main =
    options.find(option => option.type === "number") ?? options.find(option => option.type !== "null") ?? {};
  const { type, enum: choices, ...bounds } = { ...main, ...(schema.anyOf ? {} : schema) };
  const kinds: Record<string, Limit["kind"]> = {
    integer: "integer",
    number: "number",
    boolean: "flag",
    array: "list",
  };
  return {
    ...bounds,
    ...(choices ? { choices } : {}),
    kind: choices ? "choice" : (kinds[type ?? ""] ?? "text"),
    nullable: options.some(option => option.type === "null"),
    description: schema.description ?? "",
    initial: schema.default,
  };
}
