import { useEffect, useRef } from "preact/hooks";
import { Icon, type IconName } from "../components/Icon";
import { Mark } from "../components/Mark";
import { liveness, position } from "../state/live";
import { go, usePlace } from "../state/router";
import { useStore } from "../state/store";
import { watchWorkers, workers } from "../state/workers";
import { number } from "../text/times";
import { ChatsPanel } from "./chat/ChatsPanel";
import { AuditPanel } from "./history/AuditPanel";
import { ModelsPanel } from "./models/ModelsPanel";
import { openPalette } from "./Shortcuts";

const TABS = [
  { id: "chat", label: "Chats", address: "/chat", icon: "chat", Panel: ChatsPanel },
  { id: "models", label: "Models", address: "/models", icon: "stack", Panel: ModelsPanel },
  { id: "audit", label: "Audit", address: "/audit", icon: "book", Panel: AuditPanel },
] as const satisfies readonly { icon: IconName; [more: string]: unknown }[];

/** Tabs for the three parts of the page, the list of the one that is open, and the ledger's heartbeat. */
export function Sidebar({ open }: { readonly open: boolean }) {
  const { path } = usePlace();
  const chosen = TABS.find(({ id }) => path.startsWith(`/${id}`)) ?? (path === "/settings" ? null : TABS[0]);
  const box = useRef<HTMLElement>(null);
  useEffect(() => {
    if (open) box.current?.querySelector<HTMLElement>("[role=tab][tabindex='0']")?.focus();
  }, [open]);
  return (
    <nav ref={box} class="sidebar" aria-label="Model Ledger">
      <div class="brand">
        <a href="/chat" class="brand-name">
          <Mark /> Model Ledger
        </a>
        <button
          type="button"
          class="button button-small button-quiet"
          onClick={openPalette}
          title="Command palette"
        >
          <Icon name="search" />
          <span class="hidden">Command palette</span>
          <kbd>Ctrl K</kbd>
        </button>
      </div>
      <div class="tabs" role="tablist" aria-label="Parts of the page" onKeyDown={moveBetweenTabs}>
        {TABS.map(({ id, label, address, icon }) => (
          <button
            key={id}
            type="button"
            role="tab"
            id={`tab-${id}`}
            aria-selected={chosen?.id === id}
            aria-controls={chosen?.id === id ? "tab-panel" : undefined}
            tabIndex={chosen?.id === id || (!chosen && id === "chat") ? 0 : -1}
            onClick={() => go(address)}
          >
            <Icon name={icon} />
            {label}
          </button>
        ))}
      </div>
      <div
        class="panel"
        id="tab-panel"
        role="tabpanel"
        aria-labelledby={chosen ? `tab-${chosen.id}` : "tab-chat"}
      >
        {chosen && <chosen.Panel />}
      </div>
      <Heartbeat />
    </nav>
  );
}

function moveBetweenTabs(event: KeyboardEvent): void {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  const list = event.currentTarget as HTMLElement;
  const tabs = [...list.querySelectorAll<HTMLElement>("[role=tab]")];
  if (!step) return;
  const at = tabs.indexOf(document.activeElement as HTMLElement);
  const next = tabs.at((at + step) % tabs.length);
  next?.focus();
  next?.click();
}

const WORDS = { connecting: "connecting", live: "live", away: "reconnecting" } as const;

function Heartbeat() {
  const state = useStore(liveness);
  const all = useStore(workers);
  const seen = Math.max(useStore(position), all?.position ?? 0);
  useEffect(watchWorkers, []);
  return (
    <footer class="heartbeat">
      <span class={`pulse pulse-${state}`} role="status">
        {WORDS[state]}
      </span>
      {all && (
        <span
          class="quiet figure"
          title={`${all.live} of ${all.total} workers serve the newest configuration`}
        >
          {all.live}/{all.total}
        </span>
      )}
      {seen > 0 && (
        <span class="quiet figure" title="The ledger's newest position">
          {number(seen)}
        </span>
      )}
      <a class="button button-icon" href="/settings" aria-label="Settings">
        <Icon name="tune" />
      </a>
    </footer>
  );
}
