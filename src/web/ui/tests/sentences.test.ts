import { expect, test } from "vitest";
import type { Entry } from "../api/types";
import { applied } from "../state/models";
import { rank } from "../text/rank";
import { changeText, deed } from "../text/sentences";
import { relative } from "../text/times";

const entry = (more: Partial<Entry>) =>
  ({ type: "model.updated", model_id: "m", version: 2, changes: [], ...more }) as Entry;

test("one change is told with its values and units", () => {
  expect(changeText({ field: "max_timeout", op: "changed", old: 60, new: 120 })).toBe(
    "raised max timeout 60 s to 120 s",
  );
  expect(changeText({ field: "enabled", op: "changed", old: true, new: false })).toBe("disabled it");
  expect(changeText({ field: "supports_streaming", op: "changed", old: true, new: false })).toBe(
    "turned streaming off",
  );
  expect(changeText({ field: "deployment", op: "added", new: "x" })).toBe("set deployment to “x”");
});

test("a way back names the version that came back", () => {
  expect(deed(entry({ type: "model.rolled_back", to_version: 3 }), false)).toBe("rolled back to v3");
  expect(deed(entry({ type: "model.rolled_back", to_version: 3 }), true)).toBe("rolled m back to v3");
  expect(deed(entry({ type: "default.changed", model_id: null }), true)).toBe("took the default away");
  const disabled = [{ field: "enabled", op: "changed", old: true, new: false }] as const;
  expect(deed(entry({ changes: [...disabled] }), true)).toBe("disabled m");
  const raised = [{ field: "max_tokens", op: "changed", old: 1, new: 2 }] as const;
  expect(deed(entry({ changes: [...raised] }), true)).toBe("raised max tokens 1 tokens to 2 tokens in m");
});

test("times are told as people say them", () => {
  const now = Date.parse("2026-01-02T00:00:00Z");
  expect(relative("2026-01-01T23:59:58Z", now)).toBe("just now");
  expect(relative("2026-01-01T21:00:00Z", now)).toBe("3 hours ago");
  expect(relative("2026-01-01T00:00:00Z", now)).toBe("yesterday");
});

test("an older entry never takes the place of a newer state", () => {
  const model = { position: 9, version: 2, is_default: true } as never;
  const byId = new Map([["m", model]]);
  expect(applied(byId, entry({ position: 8, type: "model.deleted" }))).toBe(byId);
  expect(applied(byId, entry({ position: 10, type: "model.deleted" })).has("m")).toBe(false);
});

test("the better a name fits, the further up it stands", () => {
  const names = ["history of gpt-4-prod", "gpt-4-prod", "edit gpt-4-prod", "gpt-4-mini"];
  expect(rank(names, "gpt prod", name => name)[0]).toBe("gpt-4-prod");
  expect(rank(names, "hist prod", name => name)[0]).toBe("history of gpt-4-prod");
  expect(rank(names, "zzz", name => name)).toEqual([]);
});
