import { dismiss, hold, notices, spoken } from "../state/notices";
import { useStore } from "../state/store";
import { Icon } from "./Icon";

/** Messages at the edge of the page, and what is only said. */
export function Notices() {
  const shown = useStore(notices);
  const said = useStore(spoken);
  return (
    <>
      {/* biome-ignore lint/a11y/noStaticElementInteractions: it only keeps messages while they are read */}
      <div
        class="notices"
        onMouseEnter={() => hold(true)}
        onMouseLeave={() => hold(false)}
        onFocusIn={() => hold(true)}
        onFocusOut={() => hold(false)}
      >
        <div role="status" class="notice-list">
          {shown.map(({ id, text, tone, action }) => (
            <div key={id} class={`notice notice-${tone}`}>
              <Icon name={tone === "bad" ? "warn" : "check"} />
              <p>{text}</p>
              {action && (
                <button
                  type="button"
                  class="button button-small"
                  onClick={() => {
                    dismiss(id);
                    action.run();
                  }}
                >
                  {action.label}
                </button>
              )}
              <button
                type="button"
                class="button button-icon"
                aria-label="Dismiss"
                onClick={() => dismiss(id)}
              >
                <Icon name="close" />
              </button>
            </div>
          ))}
        </div>
      </div>
      <p class="hidden" role="status">
        {said}
      </p>
    </>
  );
}
