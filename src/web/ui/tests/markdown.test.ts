import { expect, test } from "vitest";
import { inlines, safeAddress } from "../text/inlines";
import { EMPTY, extend, parse } from "../text/markdown";

const HOSTILE = [
  "<script>alert(1)</script>",
  "<img src=x onerror=alert(1)>",
  "[x](javascript:alert(1))",
  "[x](JaVaScRiPt:alert(1))",
  "[x](data:text/html,<script>alert(1)</script>)",
  "![x](javascript:alert(1))",
  "<javascript:alert(1)>",
  "[x](//evil.example)",
  `${"> ".repeat(10_000)}deep`,
  `${"- ".repeat(5_000)}deep`,
  `${"[".repeat(5_000)}x`,
  "*".repeat(20_000),
  `${"a|".repeat(2_000)}\n${"-|".repeat(2_000)}`,
];

function links(value: unknown): string[] {
  const text = JSON.stringify(value);
  return [...text.matchAll(/"href":"([^"]*)"/g)].map(found => found[1] ?? "");
}

test("headings, lists, tables and code become blocks", () => {
  const source =
    "# Title\n\ntext\nmore\n\n- one\n  - two\n- [x] three\n\n| a | b |\n|--:|---|\n| 1 | 2 |\n\n```py\nx = 1\n```";
  expect(parse(source).map(block => block.kind)).toEqual(["heading", "paragraph", "list", "table", "code"]);
  expect(parse(source)[3]).toMatchObject({
    align: ["right", null],
    rows: [[[{ text: "1" }], [{ text: "2" }]]],
  });
  expect(parse(source)[4]).toEqual({ kind: "code", language: "py", text: "x = 1" });
});

test("a fence that is not closed yet is code already", () => {
  expect(parse("```js\nlet a")).toEqual([{ kind: "code", language: "js", text: "let a" }]);
});

test("a text that grows keeps its finished blocks as they are", () => {
  const source = "# One\n\ntwo *three*\n\n- four\n- five\n\n```sql\nSELECT 1\n```\n\nsix | seven\n";
  let document = EMPTY;
  let seen: unknown;
  for (let end = 1; end <= source.length; end += 1) {
    document = extend(document, source.slice(0, end));
    if (end === 12) seen = document.placed[0];
  }
  expect(document.placed[0]).toBe(seen);
  expect(document.placed.map(({ block }) => block)).toEqual(parse(source));
});

test("emphasis and code nest, and what is not closed stays text", () => {
  expect(inlines("**a *b* c** `d`")).toMatchObject([
    { kind: "strong", inside: [{ text: "a " }, { kind: "em" }, { text: " c" }] },
    { text: " " },
    { kind: "code", text: "d" },
  ]);
  expect(inlines("2 * 3 and **open")).toEqual([{ kind: "text", text: "2 * 3 and **open" }]);
  expect(inlines("snake_case_name")).toEqual([{ kind: "text", text: "snake_case_name" }]);
});

test("only addresses of the web and of mail become links", () => {
  expect(safeAddress("https://a.example/x")).toBe("https://a.example/x");
  expect(safeAddress("mailto:a@b.example")).toBe("mailto:a@b.example");
  expect(safeAddress("java\nscript:alert(1)")).toBeNull();
  expect(links(parse("[a](https://a.example) <https://b.example> see https://c.example."))).toEqual([
    "https://a.example/",
    "https://b.example/",
    "https://c.example/",
  ]);
});

test("pictures are told, never fetched", () => {
  expect(inlines("![chart](https://a.example/c.png)")).toEqual([
    { kind: "image", host: "a.example", alt: "chart" },
  ]);
});

test.each(HOSTILE)("hostile text %# stays text, and is read in no time", source => {
  const begun = performance.now();
  const blocks = parse(source);
  expect(performance.now() - begun).toBeLessThan(500);
  expect(links(blocks).filter(href => !/^(https?|mailto):/.test(href))).toEqual([]);
});

test("controls and marks that turn a line around are shown as escapes", () => {
  expect(inlines("a\u202eb\u200bc")).toEqual([{ kind: "text", text: "a\\u202eb\\u200bc" }]);
});
