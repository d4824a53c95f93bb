import type { components } from "./generated/contract";

type Schemas = components["schemas"];

export type Actor = Schemas["Actor"];
export type Difference = Schemas["Difference"];
export type Entry = Schemas["Entry"];
export type FieldChange = Schemas["FieldChange"];
export type Model = Schemas["ModelView"];
export type Page = Schemas["Page"];
export type Conflict = Schemas["Conflict"];
export type ProblemDetails = Schemas["ProblemDetails"];
export type Receipt = Schemas["Receipt"];
export type Stale = Schemas["Stale"];
export type Workers = Schemas["Workers"];
export type Blame = Schemas["Blame"];

export type Value = string | number | boolean | null | readonly string[];
/** A configuration as plain values; a field that is not set is absent. */
export type Fields = Readonly<Record<string, Value>>;
export type Session = Schemas["SessionView"];
export type ConnectionReport = Schemas["ConnectionReport"];
