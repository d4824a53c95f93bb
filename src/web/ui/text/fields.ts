/** The fields of a configuration: what they are called, how a value is told, and the order to tell them in. */
import type { Fields, Model, Value } from "../api/types";
import { number } from "./times";
import { visible } from "./visible";

const LABELS: Readonly<Record<string, string>> = {
  name: "Name",
  description: "Description",
  provider: "Provider",
  azure_endpoint: "Azure endpoint",
  base_url: "Base URL",
  api_version: "API version",
  deployment: "Deployment",
  max_tokens: "Max tokens",
  supports_streaming: "Streaming",
  supports_temperature: "Temperature",
  base_timeout: "Base timeout",
  max_timeout: "Max timeout",
  token_factor: "Token factor",
  credential: "Credential",
  reasoning: "Reasoning",
  max_retries: "Retries",
  enabled: "Enabled",
  aliases: "Aliases",
  fallbacks: "Fallbacks",
};
const UNITS: Readonly<Record<string, string>> = {
  base_timeout: "s",
  max_timeout: "s",
  token_factor: "s per token",
  max_tokens: "tokens",
};
/** What a model's answer says beside its configuration. */
const OF_THE_LEDGER = new Set(["version", "position", "is_default", "updated_at", "updated_by"]);

export const FIELD_ORDER: readonly string[] = Object.keys(LABELS);

export function label(field: string): string {
  return LABELS[field] ?? field.replaceAll("_", " ");
}

export function valueText(field: string, value: Value | undefined): string {
  if (value === undefined) return "not set";
  if (value === null) return field === "credential" ? "none" : "null";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "number") return UNITS[field] ? `${number(value)} ${UNITS[field]}` : number(value);
  if (typeof value === "string") return value === "" ? "empty" : visible(value);
  return value.length > 0 ? value.map(visible).join(", ") : "empty";
}

/** The configuration alone. */
export function configOf(model: Model): Fields {
  return Object.fromEntries(Object.entries(model).filter(([field]) => !OF_THE_LEDGER.has(field))) as Fields;
}

/** What of a configuration says where its calls go. */
export interface Target {
  readonly provider?: Value;
  readonly base_url?: Value;
  readonly azure_endpoint?: Value;
}

/** Where a configuration's calls go; the text itself when it is no address. */
export function host(config: Target): string {
  const address = String((config.provider === "openai" ? config.base_url : config.azure_endpoint) ?? "");
  return URL.canParse(address) ? new URL(address).host : visible(address);
}

export const providerName = (config: Target): string =>
  config.provider === "openai" ? "OpenAI-compatible" : "Azure OpenAI";

/** Known fields first, in the form's order; then whatever a later release has added. */
export function inOrder(fields: Iterable<string>): string[] {
  const given = new Set(fields);
  return [
    ...FIELD_ORDER.filter(field => given.has(field)),
    ...[...given].filter(field => !(field in LABELS)),
  ];
}
