import { useEffect } from "preact/hooks";
import { Time } from "../components/Time";
import { session, signOut } from "../state/session";
import { useStore } from "../state/store";
import { setTheme, THEMES, theme } from "../state/theme";
import { absolute } from "../text/times";
import { visible } from "../text/visible";
import { SHORTCUTS } from "./Shortcuts";

const WORDS = { system: "As the system has it", light: "Light", dark: "Dark" } as const;

export function Settings() {
  const now = useStore(session);
  const chosen = useStore(theme);
  useEffect(() => {
    document.title = "Settings · Model Ledger";
  }, []);
  return (
    <div class="view view-form">
      <header class="view-head">
        <h1>Settings</h1>
      </header>
      <fieldset class="section">
        <legend>Appearance</legend>
        <div class="section-body">
          {THEMES.map(one => (
            <label key={one} class="choice">
              <input type="radio" name="theme" checked={chosen === one} onChange={() => setTheme(one)} />
              {WORDS[one]}
            </label>
          ))}
        </div>
      </fieldset>
      {now.is === "in" && (
        <section class="section" aria-labelledby="session">
          <h2 id="session" class="section-title">
            Session
          </h2>
          <div class="section-body">
            <p>
              Signed in as <strong>{visible(now.session.actor.name)}</strong>, {now.session.role}.
              {now.session.expires_at && (
                <>
                  {" "}
                  The session ends{" "}
                  <span title={absolute(now.session.expires_at)}>
                    <Time at={now.session.expires_at} />
                  </span>
                  .
                </>
              )}
            </p>
            <p>
              <button type="button" class="button" onClick={() => void signOut()}>
                Sign out
              </button>
            </p>
            <p class="hint">Conversations are kept in this browser alone, and stay here.</p>
          </div>
        </section>
      )}
      <section class="section" aria-labelledby="shortcuts">
        <h2 id="shortcuts" class="section-title">
          Shortcuts
        </h2>
        <dl class="section-body shortcuts">
          {SHORTCUTS.map(([keys, told]) => (
            <div key={keys}>
              <dt>
                <kbd>{keys}</kbd>
              </dt>
              <dd>{told}</dd>
            </div>
          ))}
        </dl>
      </section>
    </div>
  );
}
