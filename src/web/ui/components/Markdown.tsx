import type { JSX } from "preact";
import { useRef } from "preact/hooks";
import { notify } from "../state/notices";
import { highlight, type Piece } from "../text/highlight";
import type { Inline } from "../text/inlines";
import { type Block, type Document, EMPTY, extend, type Item } from "../text/markdown";
import { Icon } from "./Icon";
import { memo } from "./memo";

/** Markdown as elements, made one by one: nothing in the text can become anything else. */
export function Markdown({ text }: { readonly text: string }) {
  const held = useRef<Document>(EMPTY);
  held.current = extend(held.current, text);
  return (
    <div class="prose">
      {held.current.placed.map(({ block }, place) => (
        <BlockView key={place} block={block} />
      ))}
    </div>
  );
}

const BlockView = memo(({ block }: { readonly block: Block }): JSX.Element => {
  switch (block.kind) {
    case "paragraph":
      return <p>{inline(block.text)}</p>;
    case "heading": {
      const Level = `h${Math.min(6, block.level + 2)}` as "h3";
      return <Level>{inline(block.text)}</Level>;
    }
    case "code":
      return <Code language={block.language} text={block.text} />;
    case "quote":
      return <blockquote>{all(block.blocks)}</blockquote>;
    case "list":
      return block.start === null ? (
        <ul>{block.items.map(item)}</ul>
      ) : (
        <ol start={block.start}>{block.items.map(item)}</ol>
      );
    case "table":
      return <Table table={block} />;
    case "rule":
      return <hr />;
  }
});

const all = (blocks: readonly Block[]) =>
  blocks.map((block, place) => <BlockView key={place} block={block} />);

function item({ done, blocks }: Item, place: number) {
  const [first] = blocks;
  const tight = blocks.length === 1 && first?.kind === "paragraph" ? inline(first.text) : all(blocks);
  return (
    <li key={place} class={done === null ? undefined : "task"}>
      {done !== null && (
        <input type="checkbox" checked={done} disabled aria-label={done ? "done" : "to do"} />
      )}
      {tight}
    </li>
  );
}

function Table({ table: { head, align, rows } }: { readonly table: Extract<Block, { kind: "table" }> }) {
  const side = (column: number) => (align[column] ? `to-${align[column]}` : undefined);
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reached by keyboard
    <section class="prose-table" tabIndex={0} aria-label="Table">
      <table>
        <thead>
          <tr>
            {head.map((cell, column) => (
              <th key={column} scope="col" class={side(column)}>
                {inline(cell)}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row, place) => (
            <tr key={place}>
              {row.map((cell, column) => (
                <td key={column} class={side(column)}>
                  {inline(cell)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

function Code({ language, text }: { readonly language: string; readonly text: string }) {
  return (
    <figure class="code">
      <figcaption>
        <span>{language || "text"}</span>
        <button
          type="button"
          class="button button-small button-quiet"
          onClick={() => copy(text, "Code copied")}
        >
          <Icon name="copy" /> Copy
        </button>
      </figcaption>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reached by keyboard */}
      <section class="code-text" tabIndex={0} aria-label={`Code, ${language || "text"}`}>
        <pre>
          <code>{highlight(text, language).map(shaded)}</code>
        </pre>
      </section>
    </figure>
  );
}

function shaded({ shade, text }: Piece, place: number): JSX.Element | string {
  if (!shade) return text;
  return (
    <span key={place} class={`shade-${shade}`}>
      {text}
    </span>
  );
}

const inline = (pieces: readonly Inline[]) => pieces.map(inlineView);

function inlineView(piece: Inline, place: number): JSX.Element | string {
  switch (piece.kind) {
    case "text":
      return piece.text;
    case "code":
      return <code key={place}>{piece.text}</code>;
    case "break":
      return <br key={place} />;
    case "strong":
      return <strong key={place}>{inline(piece.inside)}</strong>;
    case "em":
      return <em key={place}>{inline(piece.inside)}</em>;
    case "del":
      return <del key={place}>{inline(piece.inside)}</del>;
    case "link":
      return (
        <a
          key={place}
          href={piece.href}
          target="_blank"
          rel="noopener noreferrer nofollow"
          title={piece.href}
        >
          {inline(piece.inside)}
        </a>
      );
    case "image":
      return (
        <span key={place} class="image-placeholder" title="Pictures from elsewhere are not loaded">
          Picture{piece.alt && ` “${piece.alt}”`} at {piece.host}, not loaded
        </span>
      );
  }
}

export async function copy(text: string, done: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
    notify(done, "plain");
  } catch {
    notify("The browser does not let this page copy", "bad");
  }
}
