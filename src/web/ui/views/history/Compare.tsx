import { useEffect, useState } from "preact/hooks";
import * as api from "../../api/models";
import { Changes } from "../../components/Changes";
import { Icon } from "../../components/Icon";
import { copy } from "../../components/Markdown";
import { Empty, Failure, Loading } from "../../components/States";
import { useRead } from "../../components/useRead";
import { models } from "../../state/models";
import { setQuery, usePlace } from "../../state/router";
import { may } from "../../state/session";
import { useStore } from "../../state/store";
import { type Way, WayBackDialog } from "./WayBackDialog";

/** Two versions of a model, whichever; the pair stands in the address. */
export function Compare({ id }: { readonly id: string }) {
  const { query } = usePlace();
  const listing = useStore(models);
  const model = listing.is === "ready" ? listing.byId.get(id) : undefined;
  const [way, setWay] = useState<Way | null>(null);
  const from = Number(query.get("from") ?? 1);
  const to = Number(query.get("to") ?? model?.version ?? 1);
  const [read, again] = useRead(() => api.diff(id, from, to), `${id} ${from} ${to}`);
  const [newest] = useRead(() => api.history(id, { limit: 1 }), id);
  const last = newest.is === "ready" ? (newest.value.data[0]?.version ?? to) : Math.max(from, to);
  useEffect(() => {
    document.title = `${id}: v${from} and v${to} · Model Ledger`;
  }, [id, from, to]);
  return (
    <div class="view">
      <nav class="crumbs" aria-label="Where this is">
        <a href="/models">Models</a> /{" "}
        <a class="figure" href={`/models/${encodeURIComponent(id)}/history`}>
          {id}
        </a>
      </nav>
      <header class="view-head">
        <h1>Compare versions</h1>
      </header>
      <div class="tools">
        <Version name="from" told="From" value={from} last={last} />
        <button
          type="button"
          class="button button-icon"
          aria-label="Swap the sides"
          onClick={() => setQuery({ from: String(to), to: String(from) })}
        >
          <span aria-hidden="true">⇄</span>
        </button>
        <Version name="to" told="To" value={to} last={last} />
        <span class="push" />
        {read.is === "ready" && read.value.changes.length > 0 && (
          <button
            type="button"
            class="button button-quiet"
            onClick={() => void copy(JSON.stringify(read.value.patch, null, 2), "JSON Patch copied")}
          >
            <Icon name="copy" /> Copy as JSON Patch
          </button>
        )}
        {model && may("models:change") && from !== model.version && (
          <button type="button" class="button" onClick={() => setWay({ kind: "rollback", version: from })}>
            Roll back to v{from}
          </button>
        )}
      </div>
      {read.is === "loading" && <Loading what="both versions" />}
      {read.is === "failed" && <Failure error={read.error} onRetry={again} />}
      {read.is === "ready" &&
        (read.value.changes.length === 0 ? (
          <Empty title={`v${from} and v${to} are the same`} />
        ) : (
          <Changes changes={read.value.changes} caption={`What leads from v${from} to v${to}`} />
        ))}
      {way && model && (
        <WayBackDialog id={id} current={model.version} way={way} onClose={() => setWay(null)} />
      )}
    </div>
  );
}

interface VersionProps {
  readonly name: "from" | "to";
  readonly told: string;
  readonly value: number;
  readonly last: number;
}

function Version({ name, told, value, last }: VersionProps) {
  return (
    <label class="inline-field">
      {told}
      <input
        type="number"
        class="figure version-input"
        min={1}
        max={last}
        value={value}
        onChange={event => setQuery({ [name]: event.currentTarget.value })}
      />
    </label>
  );
}
