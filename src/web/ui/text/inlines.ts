/** The inside of a Markdown paragraph: emphasis, code, links; images only as their address. */
import { visible } from "./visible";

export type Inline =
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "code"; readonly text: string }
  | { readonly kind: "break" }
  | { readonly kind: "strong" | "em" | "del"; readonly inside: readonly Inline[] }
  | { readonly kind: "link"; readonly href: string; readonly inside: readonly Inline[] }
  | { readonly kind: "image"; readonly host: string; readonly alt: string };

const TOKEN =
  /\\([\\`*_{}[\]()#+\-.!|~>])|(`+)([\s\S]*?[^`])\2(?!`)|(!?)\[((?:[^[\]\\\n]|\\.|\[[^[\]\n]*\]){0,1000})\]\(\s*<?([^\s()<>]*(?:\([^\s()<>]*\)[^\s()<>]*)*)>?(?:\s+"[^"\n]*")?\s*\)|<((?:https?:\/\/|mailto:)[^\s<>]+)>|(https?:\/\/[^\s<>"'`]*[^\s<>"'`.,;:!?)\]*_~])|( {2,}|\\)?(\n)|(\*\*|__|~~|\*|_)/g;
const SAFE = new Set(["http:", "https:", "mailto:"]);
const DEEPEST = 12;
const MARKS = { "**": "strong", __: "strong", "*": "em", _: "em", "~~": "del" } as const;

type Mark = keyof typeof MARKS;

/** A run of text under a mark that may yet be closed. */
interface Open {
  readonly mark: Mark | null;
  readonly inside: Inline[];
}

export function inlines(source: string, depth = 0): Inline[] {
  const root: Open = { mark: null, inside: [] };
  const stack: Open[] = [root];
  let at = 0;
  const top = () => stack.at(-1) ?? root;
  for (const found of source.matchAll(TOKEN)) {
    add(top().inside, source.slice(at, found.index));
    at = found.index + found[0].length;
    const [whole, escaped, ticks, code, image, inner, address, angled, bare, hard, newline, mark] = found;
    if (escaped) add(top().inside, escaped);
    else if (ticks) top().inside.push({ kind: "code", text: visible(trimmed(code ?? "")) });
    else if (inner !== undefined)
      top().inside.push(...linked(whole, image === "!", inner, address ?? "", depth));
    else if (angled ?? bare)
      top().inside.push(...linked(whole, false, angled ?? bare ?? "", angled ?? bare ?? "", DEEPEST));
    else if (newline) hard ? top().inside.push({ kind: "break" }) : add(top().inside, "\n");
    else if (mark) marked(stack, mark as Mark, source[found.index - 1], source[at]);
  }
  add(top().inside, source.slice(at));
  while (stack.length > 1) unclosed(stack);
  return root.inside;
}

/** The address of a link when it is one that may be followed, else null. */
export function safeAddress(address: string): string | null {
  if (!URL.canParse(address)) return null;
  const url = new URL(address);
  return SAFE.has(url.protocol) ? url.href : null;
}

function linked(whole: string, image: boolean, inner: string, address: string, depth: number): Inline[] {
  const href = safeAddress(address);
  if (href === null) return [{ kind: "text", text: visible(whole) }];
  if (image) return [{ kind: "image", host: new URL(href).host, alt: visible(inner) }];
  const inside =
    depth < DEEPEST ? inlines(inner, DEEPEST) : [{ kind: "text", text: visible(inner) } as const];
  return [{ kind: "link", href, inside }];
}

function marked(stack: Open[], mark: Mark, before: string | undefined, after: string | undefined): void {
  const inWord = mark.startsWith("_") && /\w/.test(before ?? "") && /\w/.test(after ?? "");
  const open = stack.findLastIndex(run => run.mark === mark);
  const closes = open > 0 && before !== undefined && !/\s/.test(before) && !inWord;
  if (closes) {
    while (stack.length - 1 > open) unclosed(stack);
    const run = stack.pop();
    stack.at(-1)?.inside.push({ kind: MARKS[mark], inside: run?.inside ?? [] });
  } else if (after !== undefined && !/\s/.test(after) && !inWord && stack.length < DEEPEST) {
    stack.push({ mark, inside: [] });
  } else {
    add(stack.at(-1)?.inside ?? [], mark);
  }
}

/** What was opened and never closed is text. */
function unclosed(stack: Open[]): void {
  const run = stack.pop();
  const below = stack.at(-1);
  if (!run || !below) return;
  add(below.inside, run.mark ?? "");
  for (const item of run.inside)
    item.kind === "text" ? add(below.inside, item.text) : below.inside.push(item);
}

function add(to: Inline[], text: string): void {
  if (text === "") return;
  const last = to.at(-1);
  const shown = visible(text);
  if (last?.kind === "text") to[to.length - 1] = { kind: "text", text: last.text + shown };
  else to.push({ kind: "text", text: shown });
}

const trimmed = (code: string) =>
  (/^ .*[^ ].* $/s.test(code) ? code.slice(1, -1) : code).replaceAll("\n", " ");
