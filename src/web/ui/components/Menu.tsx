import { useId, useRef } from "preact/hooks";
import { Icon } from "./Icon";

export interface Choice {
  readonly label: string;
  readonly run: () => void;
  readonly danger?: boolean;
}

/** Further actions behind three dots. Arrows move, Escape closes. */
export function Menu({ label, choices }: { readonly label: string; readonly choices: readonly Choice[] }) {
  const id = useId();
  const list = useRef<HTMLDivElement>(null);
  const opener = useRef<HTMLButtonElement>(null);
  const items = () => [...(list.current?.querySelectorAll<HTMLElement>("[role=menuitem]") ?? [])];
  const move = (event: KeyboardEvent) => {
    const all = items();
    const at = all.indexOf(document.activeElement as HTMLElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: all.length - 1 }[event.key];
    if (event.key === "Tab") list.current?.hidePopover();
    if (to === undefined) return;
    event.preventDefault();
    all.at(to % all.length)?.focus();
  };
  const place = () => {
    const [box, button] = [list.current, opener.current?.getBoundingClientRect()];
    if (!box || !button) return;
    box.style.top = `${Math.min(button.bottom + 4, innerHeight - box.offsetHeight - 8)}px`;
    box.style.left = `${Math.max(8, button.right - box.offsetWidth)}px`;
  };
  return (
    <>
      <button
        ref={opener}
        type="button"
        class="button button-icon"
        aria-label={label}
        aria-haspopup="menu"
        popovertarget={id}
      >
        <Icon name="more" />
      </button>
      <div
        ref={list}
        id={id}
        popover="auto"
        class="menu"
        role="menu"
        aria-label={label}
        tabIndex={-1}
        onKeyDown={move}
        onToggle={event => {
          if (event.newState !== "open") return;
          place();
          items()[0]?.focus();
        }}
      >
        {choices.map(({ label: text, run, danger }) => (
          <button
            key={text}
            type="button"
            role="menuitem"
            tabIndex={-1}
            class={danger ? "menu-item danger" : "menu-item"}
            onClick={() => {
              list.current?.hidePopover();
              run();
            }}
          >
            {text}
          </button>
        ))}
      </div>
    </>
  );
}
