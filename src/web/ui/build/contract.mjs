// Reads the OpenAPI document on standard input, and writes what the page takes from it into api/generated/:
// the types of requests and answers, and the limits of a model's fields.
import { mkdirSync, writeFileSync } from "node:fs";
import { text } from "node:stream/consumers";
import openapi, { astToString } from "openapi-typescript";

const folder = new URL("../api/generated/", import.meta.url);
const contract = JSON.parse(await text(process.stdin));
const types = await openapi(contract, { defaultNonNullable: false, alphabetize: true });

mkdirSync(folder, { recursive: true });
writeFileSync(new URL("contract.ts", folder), astToString(types));
writeFileSync(new URL("model.json", folder), JSON.stringify(contract.components.schemas.ModelConfig));
