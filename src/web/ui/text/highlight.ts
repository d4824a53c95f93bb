/** A small highlighter: comments, strings, numbers and words that carry meaning, in the usual languages. */

export type Shade = "comment" | "string" | "number" | "keyword" | "name" | null;
export interface Piece {
  readonly shade: Shade;
  readonly text: string;
}

const words = (text: string) => new Set(text.split(" "));

const C_LIKE = words(
  "abstract as async await break case catch class const continue default defer delete do else enum export extends false final finally fn for from func function go if implements import in instanceof interface let match mod mut namespace new nil null of override package private protected pub public readonly return select self static struct super switch this throw trait true try type typeof undefined union unsafe use var void where while with yield int long float double bool boolean char string",
);
const PYTHON = words(
  "and as assert async await break case class continue def del elif else except False finally for from global if import in is lambda match None nonlocal not or pass raise return self True try type while with yield",
);
const SQL = words(
  "add all alter and as asc between by case cast check column constraint create cross default delete desc distinct drop else end exists false foreign from full grant group having in index inner insert into is join key left like limit not null offset on or order outer primary references returning right select set table then true union unique update using values view when where with",
);
const SHELL = words(
  "case do done elif else esac export fi for function if in local return set then until while cd curl echo make npm pip python sudo",
);
const DATA = words("true false null yes no on off");

const HASH = "#[^\\n]*";
const SLASHES = "\\/\\/[^\\n]*|\\/\\*[\\s\\S]*?(?:\\*\\/|$)";
const QUOTED = "\"(?:[^\"\\\\\\n]|\\\\.)*\"?|'(?:[^'\\\\\\n]|\\\\.)*'?";
const TRIPLE = "\"\"\"[\\s\\S]*?(?:\"\"\"|$)|'''[\\s\\S]*?(?:'''|$)";
const BACKTICK = "`(?:[^`\\\\]|\\\\.)*`?";

interface Grammar {
  readonly token: RegExp;
  readonly keywords: ReadonlySet<string>;
  readonly anyCase?: boolean;
}

const grammar = (comment: string, text: string, keywords: ReadonlySet<string>, anyCase = false): Grammar => ({
  token: new RegExp(
    `(?<comment>${comment})|(?<string>${text})|(?<number>\\b\\d[\\w.]*)|(?<word>[A-Za-z_$][\\w$]*)(?<call>(?=\\())?`,
    "g",
  ),
  keywords,
  anyCase,
});

const C = grammar(SLASHES, `${BACKTICK}|${QUOTED}`, C_LIKE);
const PY = grammar(HASH, `${TRIPLE}|${QUOTED}`, PYTHON);
const SH = grammar(`(?<![\\w$])${HASH}`, QUOTED, SHELL);
const YAML = grammar(HASH, QUOTED, DATA);
const QUERY = grammar(`--[^\\n]*|${SLASHES}`, QUOTED, SQL, true);

const GRAMMARS: Readonly<Record<string, Grammar>> = {
  ...all(
    "js jsx ts tsx javascript typescript java c cpp csharp cs go rust rs kotlin swift php scala dart css",
    C,
  ),
  ...all("py python python3", PY),
  ...all("sh bash shell zsh console dockerfile makefile", SH),
  ...all("yaml yml toml ini json jsonc json5", YAML),
  ...all("sql postgresql psql", QUERY),
};

export function highlight(text: string, language: string): Piece[] {
  const known = GRAMMARS[language];
  if (!known || text.length > 50_000) return [{ shade: null, text }];
  const pieces: Piece[] = [];
  let at = 0;
  for (const found of text.matchAll(known.token)) {
    if (found.index > at) pieces.push({ shade: null, text: text.slice(at, found.index) });
    pieces.push({ shade: shadeOf(found.groups ?? {}, known), text: found[0] });
    at = found.index + found[0].length;
  }
  if (at < text.length) pieces.push({ shade: null, text: text.slice(at) });
  return pieces;
}

function shadeOf(found: Record<string, string | undefined>, { keywords, anyCase }: Grammar): Shade {
  if (found.comment) return "comment";
  if (found.string) return "string";
  if (found.number) return "number";
  const word = found.word ?? "";
  if (keywords.has(anyCase ? word.toLowerCase() : word)) return "keyword";
  return found.call === undefined ? null : "name";
}

function all(names: string, one: Grammar): Record<string, Grammar> {
  return Object.fromEntries(names.split(" ").map(name => [name, one]));
}
