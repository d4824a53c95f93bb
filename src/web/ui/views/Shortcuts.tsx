import { useEffect } from "preact/hooks";
import { Dialog } from "../components/Dialog";
import { currentPlace, go } from "../state/router";
import { store, useStore } from "../state/store";
import { Palette } from "./Palette";

export const SHORTCUTS: readonly (readonly [keys: string, told: string])[] = [
  ["Ctrl K", "Go anywhere: the command palette"],
  ["?", "Show these shortcuts"],
  ["/", "Go to the message box, or to the search"],
  ["n", "New chat"],
  ["g m", "Models"],
  ["g c", "Chats"],
  ["g a", "Audit log"],
  ["Esc", "Stop the answer; close what is open"],
  ["Ctrl Enter", "Review and save, in a form"],
];

type Open = null | "palette" | "help";

const open = store<Open>(null);
export const openPalette = (): void => open.set("palette");

/** The keys that work everywhere; single ones only where nobody types. */
export function Shortcuts() {
  const now = useStore(open);
  useEffect(() => {
    let after = "";
    const press = (event: KeyboardEvent) => {
      if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
        event.preventDefault();
        return open.set("palette");
      }
      if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
      if (document.querySelector("dialog[open]")) return;
      const pair = `${after} ${event.key}`.trim();
      after = event.key === "g" ? "g" : "";
      const run = KEYS[pair] ?? KEYS[event.key];
      if (!run) return;
      event.preventDefault();
      run();
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, []);
  if (now === "palette") return <Palette onClose={() => open.set(null)} />;
  if (now === "help") return <Help onClose={() => open.set(null)} />;
  return null;
}

const KEYS: Readonly<Record<string, () => void>> = {
  "?": () => open.set("help"),
  "/": () => {
    const wanted = currentPlace().path.startsWith("/chat") ? "#composer" : "main [type=search]";
    document.querySelector<HTMLElement>(wanted)?.focus();
  },
  n: () => go("/chat"),
  "g m": () => go("/models"),
  "g c": () => go("/chat"),
  "g a": () => go("/audit"),
};

function isTyping(target: EventTarget | null): boolean {
  return (
    target instanceof HTMLElement &&
    (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName))
  );
}

function Help({ onClose }: { readonly onClose: () => void }) {
  return (
    <Dialog title="Shortcuts" onClose={onClose}>
      <dl class="shortcuts">
        {SHORTCUTS.map(([keys, told]) => (
          <div key={keys}>
            <dt>
              <kbd>{keys}</kbd>
            </dt>
            <dd>{told}</dd>
          </div>
        ))}
      </dl>
    </Dialog>
  );
}
