import { useState } from "preact/hooks";
import { Icon } from "../../components/Icon";
import { models } from "../../state/models";
import { usePlace } from "../../state/router";
import { may } from "../../state/session";
import { useStore } from "../../state/store";
import { arranged } from "./arranged";

/** The sidebar's list of models. */
export function ModelsPanel() {
  const listing = useStore(models);
  const { path } = usePlace();
  const [text, setText] = useState("");
  const shown = listing.is === "ready" ? arranged(listing.byId, text, "id") : [];
  return (
    <>
      <div class="panel-head">
        <label class="search">
          <Icon name="search" />
          <span class="hidden">Find a model</span>
          <input
            type="search"
            placeholder="Find a model"
            value={text}
            onInput={event => setText(event.currentTarget.value)}
          />
        </label>
        {may("models:change") && (
          <a class="button button-icon" href="/models/~new" aria-label="Add model">
            <Icon name="plus" />
          </a>
        )}
      </div>
      <ul class="list">
        {shown.slice(0, 200).map(([id, model]) => (
          <li key={id}>
            <a
              href={`/models/${encodeURIComponent(id)}`}
              aria-current={path.startsWith(`/models/${encodeURIComponent(id)}`) ? "page" : undefined}
            >
              <span class="list-name figure">{id}</span>
              <span class="list-note">
                {model.is_default && <span class="badge">default</span>}
                {!model.enabled && <span class="badge badge-off">off</span>}
                <span class="quiet figure">v{model.version}</span>
              </span>
            </a>
          </li>
        ))}
      </ul>
      {shown.length > 200 && <p class="quiet panel-note">{shown.length - 200} more: narrow the search</p>}
      <p class="panel-note">
        <a href="/models/~deleted">Deleted models</a>
      </p>
    </>
  );
}
