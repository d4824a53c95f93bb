import { expect, test } from "vitest";
import { difference, merge } from "../text/merge";

const BASE = { name: "a", max_tokens: 1, aliases: ["x"], description: "" };

test("changes of different fields are merged by themselves", () => {
  const { merged, conflicts } = merge(BASE, { ...BASE, max_tokens: 2 }, { ...BASE, name: "b" });
  expect(merged).toEqual({ ...BASE, max_tokens: 2, name: "b" });
  expect(conflicts).toEqual([]);
});

test("a field that both changed is a conflict, unless to the same", () => {
  const both = { ...BASE, name: "c" };
  expect(merge(BASE, both, { ...BASE, name: "b" }).conflicts).toEqual([
    { field: "name", base: "a", theirs: "c", mine: "b" },
  ]);
  expect(merge(BASE, both, both).conflicts).toEqual([]);
});

test("a field that I removed stays removed", () => {
  const { description: _, ...mine } = BASE;
  expect(merge(BASE, { ...BASE, name: "b" }, mine).merged).toEqual({
    name: "b",
    max_tokens: 1,
    aliases: ["x"],
  });
});

test("every field that one side alone changed has that side's value, in all combinations", () => {
  const values = [undefined, 1, 2];
  for (const base of values) {
    for (const theirs of values) {
      for (const mine of values) {
        const of = (value: number | undefined) => (value === undefined ? {} : { f: value });
        const { merged, conflicts } = merge(of(base), of(theirs), of(mine));
        const clash = base !== theirs && base !== mine && theirs !== mine;
        expect(conflicts.length).toBe(clash ? 1 : 0);
        expect(merged.f).toBe(base === theirs ? mine : theirs);
      }
    }
  }
});

test("the difference tells what was added, changed and removed, and no list that is the same", () => {
  expect(difference(BASE, { name: "b", max_tokens: 1, aliases: ["x"], enabled: true })).toEqual([
    { field: "name", op: "changed", old: "a", new: "b" },
    { field: "description", op: "removed", old: "" },
    { field: "enabled", op: "added", new: true },
  ]);
});
