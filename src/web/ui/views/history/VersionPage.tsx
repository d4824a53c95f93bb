import { useEffect, useState } from "preact/hooks";
import * as api from "../../api/models";
import type { Fields } from "../../api/types";
import { Failure, Loading } from "../../components/States";
import { useRead } from "../../components/useRead";
import { models } from "../../state/models";
import { may } from "../../state/session";
import { useStore } from "../../state/store";
import { inOrder, label, valueText } from "../../text/fields";
import { EntryItem } from "./EntryItem";
import { type Way, WayBackDialog } from "./WayBackDialog";

/** One version of a model: what made it, and the whole configuration that it left. */
export function VersionPage({ id, version }: { readonly id: string; readonly version: number }) {
  const listing = useStore(models);
  const model = listing.is === "ready" ? listing.byId.get(id) : undefined;
  const [way, setWay] = useState<Way | null>(null);
  const [read, again] = useRead(async () => {
    const page = await api.history(id, { cursor: String(version + 1), limit: 1 });
    const entry = page.data[0];
    if (entry?.version !== version) throw new Error(`${id} has no version ${version}.`);
    return entry;
  }, `${id} ${version}`);
  const address = `/models/${encodeURIComponent(id)}`;
  useEffect(() => {
    document.title = `${id} v${version} · Model Ledger`;
  }, [id, version]);
  const current = model?.version === version;
  return (
    <div class="view">
      <nav class="crumbs" aria-label="Where this is">
        <a href="/models">Models</a> /{" "}
        <a class="figure" href={`${address}/history`}>
          {id}
        </a>
      </nav>
      <header class="view-head">
        <h1 class="figure">
          {id} v{version}
        </h1>
        {current && <span class="badge">current</span>}
        <span class="push" />
        {version > 1 && (
          <a class="button button-quiet" href={`${address}/compare?from=${version - 1}&to=${version}`}>
            Compare with v{version - 1}
          </a>
        )}
        {model && !current && (
          <a class="button button-quiet" href={`${address}/compare?from=${version}&to=${model.version}`}>
            Compare with today
          </a>
        )}
        {model && !current && may("models:change") && (
          <button
            type="button"
            class="button button-primary"
            onClick={() => setWay({ kind: "rollback", version })}
          >
            Roll back to this
          </button>
        )}
      </header>
      {read.is === "loading" && <Loading what={`version ${version}`} />}
      {read.is === "failed" && <Failure error={read.error} onRetry={again} />}
      {read.is === "ready" && (
        <>
          <ol class="entries">
            <EntryItem entry={read.value} named={false} />
          </ol>
          <Snapshot config={(read.value.config ?? {}) as unknown as Fields} />
          <p class="quiet">
            Position <span class="figure">{read.value.position}</span> · request{" "}
            <code>{read.value.request_id}</code> · hash <code>{read.value.hash.slice(0, 16)}</code>
          </p>
        </>
      )}
      {way && model && (
        <WayBackDialog id={id} current={model.version} way={way} onClose={() => setWay(null)} />
      )}
    </div>
  );
}

function Snapshot({ config }: { readonly config: Fields }) {
  return (
    <table class="sheet">
      <caption class="hidden">The configuration</caption>
      <tbody>
        {inOrder(Object.keys(config)).map(field => (
          <tr key={field}>
            <th scope="row">{label(field)}</th>
            <td class="figure">{valueText(field, config[field])}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
