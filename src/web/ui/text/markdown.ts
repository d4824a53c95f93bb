/**
 * Markdown as a tree, block by block. No HTML: what looks like it is text.
 *
 * A text that grows is read again from the start of its last block only; the blocks before it stay the same
 * objects, so that nothing is drawn twice.
 */
import { type Inline, inlines } from "./inlines";

export type Align = "left" | "center" | "right" | null;

export type Block =
  | { readonly kind: "paragraph"; readonly text: readonly Inline[] }
  | { readonly kind: "heading"; readonly level: number; readonly text: readonly Inline[] }
  | { readonly kind: "code"; readonly language: string; readonly text: string }
  | { readonly kind: "quote"; readonly blocks: readonly Block[] }
  | { readonly kind: "list"; readonly start: number | null; readonly items: readonly Item[] }
  | {
      readonly kind: "table";
      readonly align: readonly Align[];
      readonly head: readonly (readonly Inline[])[];
      readonly rows: readonly (readonly (readonly Inline[])[])[];
    }
  | { readonly kind: "rule" };

export interface Item {
  /** Whether a task is done; null for an item that is none. */
  readonly done: boolean | null;
  readonly blocks: readonly Block[];
}

interface Placed {
  readonly block: Block;
  /** The line that it begins on. */
  readonly line: number;
}

export interface Document {
  readonly source: string;
  readonly placed: readonly Placed[];
}

export const EMPTY: Document = { source: "", placed: [] };

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^\s`]*)[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})(?:\s+(.*?))?(?:\s+#+)?\s*$/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])( +|$)/;
const TASK = /^\[([ xX])\]\s+/;
const DIVIDER = /^ {0,3}\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$/;
const DEEPEST = 8;

/** The document of a text that may continue an earlier one. */
export function extend(before: Document, source: string): Document {
  if (source === before.source) return before;
  const last = before.placed.at(-1);
  if (!last || !source.startsWith(before.source)) return { source, placed: blocks(source.split("\n"), 0, 0) };
  const lines = source.split("\n");
  return { source, placed: [...before.placed.slice(0, -1), ...blocks(lines, last.line, 0)] };
}

export const parse = (source: string): Block[] => plain(source.split("\n"), 0);

const plain = (lines: readonly string[], depth: number) => blocks(lines, 0, depth).map(({ block }) => block);

function blocks(lines: readonly string[], from: number, depth: number): Placed[] {
  const found: Placed[] = [];
  let at = from;
  while (at < lines.length) {
    if (line(lines, at).trim() === "") {
      at += 1;
      continue;
    }
    const [block, next] = one(lines, at, depth);
    found.push({ block, line: at });
    at = next;
  }
  return found;
}

type Read = readonly [Block, number];

function one(lines: readonly string[], at: number, depth: number): Read {
  const text = line(lines, at);
  const fence = FENCE.exec(text);
  if (fence) return code(lines, at, fence);
  const heading = HEADING.exec(text);
  if (heading) {
    return [{ kind: "heading", level: heading[1]?.length ?? 1, text: inlines(heading[2] ?? "") }, at + 1];
  }
  if (RULE.test(text)) return [{ kind: "rule" }, at + 1];
  if (depth < DEEPEST) {
    if (QUOTE.test(text)) return quote(lines, at, depth);
    if (ITEM.test(text)) return list(lines, at, depth);
  }
  if (text.includes("|") && DIVIDER.test(line(lines, at + 1)) && line(lines, at + 1).includes("-")) {
    const read = table(lines, at);
    if (read) return read;
  }
  return paragraph(lines, at, depth);
}

function code(lines: readonly string[], at: number, fence: RegExpExecArray): Read {
  const marks = fence[1] ?? "```";
  const end = new RegExp(`^ {0,3}${marks[0] === "~" ? "~" : "`"}{${marks.length},}\\s*$`);
  const held: string[] = [];
  let next = at + 1;
  while (next < lines.length && !end.test(line(lines, next))) held.push(line(lines, next++));
  return [{ kind: "code", language: (fence[2] ?? "").toLowerCase(), text: held.join("\n") }, next + 1];
}

function quote(lines: readonly string[], at: number, depth: number): Read {
  const held: string[] = [];
  let next = at;
  while (
    next < lines.length &&
    line(lines, next).trim() !== "" &&
    (QUOTE.test(line(lines, next)) || next > at)
  ) {
    if (!QUOTE.test(line(lines, next)) && interrupts(line(lines, next))) break;
    held.push(line(lines, next++).replace(QUOTE, ""));
  }
  return [{ kind: "quote", blocks: plain(held, depth + 1) }, next];
}

function list(lines: readonly string[], at: number, depth: number): Read {
  const marker = ITEM.exec(line(lines, at))?.[2] ?? "-";
  const items: Item[] = [];
  let next = at;
  for (;;) {
    const begun = ITEM.exec(line(lines, next));
    if (!begun || !alike(marker, begun[2] ?? "") || RULE.test(line(lines, next))) break;
    const [item, after] = itemOf(lines, next, begun, depth);
    items.push(item);
    next = after;
    const blanks = blankLines(lines, next);
    if (blanks > 0 && ITEM.test(line(lines, next + blanks))) next += blanks;
  }
  const number = Number.parseInt(marker, 10);
  return [{ kind: "list", start: Number.isNaN(number) ? null : number, items }, next];
}

function itemOf(lines: readonly string[], at: number, begun: RegExpExecArray, depth: number): [Item, number] {
  const width = begun[0].length;
  const first = line(lines, at).slice(width);
  const task = TASK.exec(first);
  const held = [task ? first.slice(task[0].length) : first];
  let next = at + 1;
  while (next < lines.length) {
    const blanks = blankLines(lines, next);
    const ahead = line(lines, next + blanks);
    const indented = ahead.length - ahead.trimStart().length >= Math.min(width, 2);
    if (blanks > 0 && !indented) break;
    if (blanks === 0 && !indented && (interrupts(ahead) || ITEM.test(ahead))) break;
    for (let skipped = 0; skipped < blanks; skipped += 1) held.push("");
    next += blanks;
    if (next >= lines.length) break;
    held.push(ahead.replace(new RegExp(`^ {0,${width}}`), ""));
    next += 1;
  }
  return [{ done: task ? task[1] !== " " : null, blocks: plain(held, depth + 1) }, next];
}

function table(lines: readonly string[], at: number): Read | null {
  const head = cells(line(lines, at));
  const align = cells(line(lines, at + 1)).map(alignment);
  if (head.length !== align.length) return null;
  const rows: Inline[][][] = [];
  let next = at + 2;
  while (next < lines.length && line(lines, next).includes("|") && line(lines, next).trim() !== "") {
    const given = cells(line(lines, next++));
    rows.push(head.map((_, column) => inlines(given[column] ?? "")));
  }
  return [{ kind: "table", align, head: head.map(cell => inlines(cell)), rows }, next];
}

function paragraph(lines: readonly string[], at: number, depth: number): Read {
  const held = [line(lines, at)];
  let next = at + 1;
  while (next < lines.length && line(lines, next).trim() !== "") {
    if (interrupts(line(lines, next)) || (depth < DEEPEST && ITEM.test(line(lines, next)))) break;
    held.push(line(lines, next++));
  }
  return [{ kind: "paragraph", text: inlines(held.map(text => text.trimStart()).join("\n")) }, next];
}

function cells(text: string): string[] {
  const inner = text
    .trim()
    .replace(/^\|/, "")
    .replace(/(?<!\\)\|$/, "");
  return inner.split(/(?<!\\)\|/).map(cell => cell.trim().replaceAll("\\|", "|"));
}

function alignment(cell: string): Align {
  const [left, right] = [cell.startsWith(":"), cell.endsWith(":")];
  return left && right ? "center" : right ? "right" : left ? "left" : null;
}

const interrupts = (text: string) =>
  FENCE.test(text) || HEADING.test(text) || RULE.test(text) || QUOTE.test(text);

const alike = (one: string, other: string) =>
  /\d/.test(one) ? /\d/.test(other) && one.at(-1) === other.at(-1) : one === other;

function blankLines(lines: readonly string[], at: number): number {
  let count = 0;
  while (at + count < lines.length && line(lines, at + count).trim() === "") count += 1;
  return count;
}

const line = (lines: readonly string[], at: number): string => lines[at] ?? "";
