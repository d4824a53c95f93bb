const PATHS = {
  menu: "M3 5h14M3 10h14M3 15h14",
  close: "M5 5l10 10M15 5L5 15",
  plus: "M10 4v12M4 10h12",
  search: "M9 3.5a5.5 5.5 0 1 0 0 11a5.5 5.5 0 0 0 0-11M13.2 13.2L17 17",
  more: "M5 9.2v1.6M10 9.2v1.6M15 9.2v1.6",
  copy: "M7 7V4h9v9h-3M4 7h9v9H4z",
  again: "M16 10a6 6 0 1 1-1.8-4.3M16 3v3.5h-3.5",
  edit: "M4 16l.8-3.4L13.2 4.2a1.5 1.5 0 0 1 2.2 0l.4.4a1.5 1.5 0 0 1 0 2.2L7.4 15.2z",
  stop: "M6 6h8v8H6z",
  send: "M10 16V4M5 9l5-5l5 5",
  down: "M5 8l5 5l5-5",
  check: "M4 10.5l4 4l8-9",
  warn: "M10 3.5L17.5 16.5H2.5zM10 8.5v3.5M10 14.2h.01",
  out: "M8 4H4v12h4M9 10h8M14 7l3 3l-3 3",
  chat: "M4 4.5h12v9H9l-4 3v-3H4z",
  stack: "M3.5 7L10 3.5L16.5 7L10 10.5zM3.5 10.5L10 14l6.5-3.5M3.5 13.8L10 17.3l6.5-3.5",
  book: "M5 3.5h10v13H6.5A1.5 1.5 0 0 1 5 15zM5 15a1.5 1.5 0 0 1 1.5-1.5H15M8 7h4",
  tune: "M3 6h8M15 6h2M13 4v4M3 14h2M9 14h8M7 12v4",
} as const;

export type IconName = keyof typeof PATHS;

/** A drawing beside words, or alone in a button that has a name; never read out itself. */
export function Icon({ name }: { readonly name: IconName }) {
  return (
    <svg class="icon" viewBox="0 0 20 20" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} />
    </svg>
  );
}
