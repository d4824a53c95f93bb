import { useId, useLayoutEffect, useRef, useState } from "preact/hooks";
import { chats } from "../state/chats";
import { models } from "../state/models";
import { go } from "../state/router";
import { may } from "../state/session";
import { useStore } from "../state/store";
import { setTheme, THEMES } from "../state/theme";
import { rank } from "../text/rank";

interface Command {
  readonly name: string;
  readonly note: string;
  readonly run: () => void;
}

const MOST = 40;

/** Everything that can be gone to or done, by a few of its letters. */
export function Palette({ onClose }: { readonly onClose: () => void }) {
  const box = useRef<HTMLDialogElement>(null);
  const list = useId();
  const [text, setText] = useState("");
  const [at, setAt] = useState(0);
  const commands = useCommands();
  const find = (wanted: string) =>
    rank(commands, wanted, ({ name, note }) => `${name} ${note}`).slice(0, MOST);
  const shown = find(text);
  useLayoutEffect(() => {
    const before = document.activeElement;
    box.current?.showModal();
    return () => {
      if (before instanceof HTMLElement && before.isConnected) before.focus();
    };
  }, []);
  const run = (command: Command | undefined) => {
    if (!command) return;
    onClose();
    command.run();
  };
  const press = (event: KeyboardEvent) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      event.preventDefault();
      const next = (at + step + shown.length) % Math.max(1, shown.length);
      setAt(next);
      document.getElementById(`${list}-${next}`)?.scrollIntoView({ block: "nearest" });
    } else if (event.key === "Enter") {
      event.preventDefault();
      // Who types fast is ahead of what is shown.
      const typed = box.current?.querySelector("input")?.value ?? text;
      run(typed === text ? shown[at] : find(typed)[0]);
    }
  };
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: Escape does the same
    <dialog
      ref={box}
      class="dialog palette"
      aria-label="Command palette"
      onCancel={event => {
        event.preventDefault();
        onClose();
      }}
      onClick={event => event.target === box.current && onClose()}
    >
      <input
        type="text"
        role="combobox"
        aria-label="Go to or do"
        aria-expanded="true"
        aria-controls={list}
        aria-autocomplete="list"
        aria-activedescendant={shown.length > 0 ? `${list}-${at}` : undefined}
        placeholder="Go to a model, a chat, a view"
        autoComplete="off"
        value={text}
        onInput={event => {
          setText(event.currentTarget.value);
          setAt(0);
        }}
        onKeyDown={press}
      />
      <div id={list} role="listbox" aria-label="Commands">
        {shown.map((command, place) => (
          <div
            key={command.name + command.note}
            id={`${list}-${place}`}
            role="option"
            tabIndex={-1}
            aria-selected={place === at}
            onMouseMove={() => setAt(place)}
            onClick={() => run(command)}
            onKeyDown={press}
          >
            <span>{command.name}</span>
            <span class="quiet">{command.note}</span>
          </div>
        ))}
      </div>
      {shown.length === 0 && <p class="quiet palette-none">Nothing is called that</p>}
    </dialog>
  );
}

function useCommands(): Command[] {
  const listing = useStore(models);
  const kept = useStore(chats);
  const to = (name: string, note: string, address: string): Command => ({
    name,
    note,
    run: () => go(address),
  });
  const ids = listing.is === "ready" ? [...listing.byId] : [];
  return [
    to("New chat", "chat", "/chat"),
    ...(may("models:change") ? [to("Add model", "models", "/models/~new")] : []),
    to("Models", "view", "/models"),
    to("Deleted models", "view", "/models/~deleted"),
    to("Audit log", "view", "/audit"),
    to("Settings", "view", "/settings"),
    ...ids.map(([id, { name }]) => to(id, name, `/models/${encodeURIComponent(id)}`)),
    ...ids.flatMap(([id, { enabled }]) =>
      enabled ? [to(`Chat with ${id}`, "chat", `/chat?model=${encodeURIComponent(id)}`)] : [],
    ),
    ...ids.map(([id]) => to(`History of ${id}`, "history", `/models/${encodeURIComponent(id)}/history`)),
    ...(may("models:change")
      ? ids.map(([id]) => to(`Edit ${id}`, "models", `/models/${encodeURIComponent(id)}/edit`))
      : []),
    ...[...(kept?.values() ?? [])].map(({ id, title }) => to(title, "conversation", `/chat/${id}`)),
    ...THEMES.map(theme => ({ name: `Theme: ${theme}`, note: "settings", run: () => setTheme(theme) })),
  ];
}
