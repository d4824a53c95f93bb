import { useEffect, useState } from "preact/hooks";
import { Icon } from "../components/Icon";
import { Loading } from "../components/States";
import { readChats } from "../state/chats";
import { startFeed } from "../state/live";
import { type Place, usePlace } from "../state/router";
import { ChatView } from "./chat/ChatView";
import { later } from "./later";
import { Cards } from "./models/Cards";
import { Shortcuts } from "./Shortcuts";
import { Sidebar } from "./Sidebar";

const ModelForm = later(() => import("./models/ModelForm").then(found => found.ModelForm));
const ModelPage = later(() => import("./models/ModelPage").then(found => found.ModelPage));
const Deleted = later(() => import("./models/Deleted").then(found => found.Deleted));
const Compare = later(() => import("./history/Compare").then(found => found.Compare));
const VersionPage = later(() => import("./history/VersionPage").then(found => found.VersionPage));
const Audit = later(() => import("./history/Audit").then(found => found.Audit));
const Settings = later(() => import("./Settings").then(found => found.Settings));

/** Sidebar and view; on narrow screens the sidebar is a drawer over the view. */
export function Frame() {
  const place = usePlace();
  const [open, setOpen] = useState(false);
  useEffect(() => {
    void readChats();
    return startFeed();
  }, []);
  useEffect(() => setOpen(false), [place]);
  useEffect(() => {
    if (!open) return;
    const press = (event: KeyboardEvent) => event.key === "Escape" && setOpen(false);
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, [open]);
  return (
    <div class={open ? "frame frame-open" : "frame"}>
      <button type="button" class="skip button" onClick={skip}>
        Skip to the content
      </button>
      <Sidebar open={open} />
      {open && <div class="veil" onClick={() => setOpen(false)} aria-hidden="true" />}
      <div class="stage" inert={open}>
        <header class="narrow-bar">
          <button
            type="button"
            class="button button-icon"
            aria-label="Open the sidebar"
            aria-expanded={open}
            onClick={() => setOpen(true)}
          >
            <Icon name="menu" />
          </button>
          <span>Model Ledger</span>
        </header>
        <main id="main" tabIndex={-1}>
          {view(place)}
        </main>
      </div>
      <Shortcuts />
    </div>
  );
}

function skip(): void {
  document.getElementById("main")?.focus();
}

/** Which view an address stands for. No model's id begins with `~`, which names what is no model. */
function view({ path }: Place) {
  const [head, first, second, third] = path.split("/").slice(1).map(decodeURIComponent);
  switch (head) {
    case "":
    case "chat":
    case "sign-in":
      return <ChatView id={first ?? null} />;
    case "models":
      if (!first) return <Cards />;
      if (first === "~new") return <ModelForm id={null} key="new" />;
      if (first === "~deleted") return <Deleted />;
      if (second === "edit") return <ModelForm id={first} key={first} />;
      if (second === "compare") return <Compare id={first} />;
      if (second === "versions" && third) return <VersionPage id={first} version={Number(third)} />;
      return <ModelPage id={first} tab={second === "history" ? "history" : "configuration"} />;
    case "audit":
      return <Audit />;
    case "settings":
      return <Settings />;
    default:
      return <Loading what="nothing: there is no such view" />;
  }
}
