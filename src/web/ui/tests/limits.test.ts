import { expect, test } from "vitest";
import { configOfDraft, draftOf, newDraft } from "../state/draft";
import { LIMITS, problems, timeoutFor } from "../text/limits";

const SOUND = {
  name: "A model",
  max_tokens: 4096,
  supports_streaming: true,
  supports_temperature: true,
  provider: "azure",
  api_version: "2025-01-01-preview",
  azure_endpoint: "https://a.openai.azure.com",
};

test("a sound configuration has no problem", () => {
  expect(problems("gpt-4", SOUND)).toEqual({});
});

test("the limits are the server's own", () => {
  expect(LIMITS.max_tokens).toMatchObject({ kind: "integer", minimum: 1 });
  expect(LIMITS.base_timeout).toMatchObject({
    kind: "number",
    exclusiveMinimum: 0,
    maximum: 86_400,
    initial: 120,
  });
  expect(LIMITS.credential).toMatchObject({ kind: "text", nullable: true });
});

test.each([
  [{ max_tokens: 0 }, "max_tokens"],
  [{ max_tokens: 1.5 }, "max_tokens"],
  [{ max_tokens: Number.NaN }, "max_tokens"],
  [{ name: " " }, "name"],
  [{ name: "x".repeat(201) }, "name"],
  [{ azure_endpoint: "a.openai.azure.com" }, "azure_endpoint"],
  [{ provider: "openai" }, "base_url"],
  [{ base_timeout: 400, max_timeout: 300 }, "base_timeout"],
  [{ token_factor: -1 }, "token_factor"],
  [{ max_retries: 11 }, "max_retries"],
])("%j is told at %s", (broken, field) => {
  expect(Object.keys(problems(null, { ...SOUND, ...broken }))).toContain(field);
});

test.each(["", "-a", "a b", "a/b", "x".repeat(129)])("%j is no id", id => {
  expect(problems(id, SOUND)).toHaveProperty("model_id");
});

test("a new model begins with the usual values", () => {
  const config = configOfDraft(newDraft("", {}), {});
  expect(config).toMatchObject({
    max_tokens: 4096,
    api_version: "2025-01-01-preview",
    base_timeout: 120,
    enabled: true,
  });
  expect(config).not.toHaveProperty("deployment");
});

test("a form that was not touched stands for the configuration that it began with", () => {
  const config = {
    ...SOUND,
    description: "",
    credential: null,
    base_timeout: 60,
    token_factor: 0.05,
    of_a_later_release: 7,
  };
  expect(configOfDraft(draftOf("gpt-4", config), config)).toEqual(config);
});

test("the time of a call grows with its tokens up to the most", () => {
  const config = { base_timeout: 60, max_timeout: 300, token_factor: 0.05, max_tokens: 100 };
  expect(timeoutFor(config, 0)).toBe(65);
  expect(timeoutFor(config, 1000, 0)).toBe(110);
  expect(timeoutFor(config, 100_000)).toBe(300);
});
