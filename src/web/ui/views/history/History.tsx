import { useState } from "preact/hooks";
import * as api from "../../api/models";
import type { Entry, Model } from "../../api/types";
import { Search } from "../../components/Search";
import { Empty, Failure, Loading, Problem } from "../../components/States";
import { newest } from "../../state/live";
import { go, setQuery, usePlace } from "../../state/router";
import { may } from "../../state/session";
import { useStore } from "../../state/store";
import { inOrder, label } from "../../text/fields";
import { EVENT_TYPES, typeText } from "../../text/sentences";
import { EntryItem, isModelEvent } from "./EntryItem";
import { usePages } from "./usePages";
import { type Way, WayBackDialog } from "./WayBackDialog";

/** What became of one model, newest first, with the ways back. */
export function History({ id, model }: { readonly id: string; readonly model: Model | undefined }) {
  const { query } = usePlace();
  const [way, setWay] = useState<Way | null>(null);
  const [base, setBase] = useState<number | null>(null);
  const news = useStore(newest);
  const filter = { model: id, type: query.get("type"), actor: query.get("actor"), text: query.get("text") };
  const filtered = Boolean(filter.type || filter.actor || filter.text);
  const field = query.get("field");
  const tick = news?.model_id === id ? news.position : 0;
  const pages = usePages(
    cursor =>
      filtered ? api.events({ ...filter, cursor, limit: 50 }) : api.history(id, { cursor, limit: 50 }),
    `${id} ${filter.type} ${filter.actor} ${filter.text} ${tick}`,
  );
  const shown = pages.entries.filter(entry => !field || entry.changes.some(change => change.field === field));
  const fields = inOrder(pages.entries.flatMap(entry => entry.changes.map(change => change.field)));
  const compare = (version: number) => {
    if (base === null || base === version) return setBase(base === version ? null : version);
    const [from, to] = [Math.min(base, version), Math.max(base, version)];
    go(`/models/${encodeURIComponent(id)}/compare?from=${from}&to=${to}`);
  };
  if (pages.first.is === "loading" && pages.entries.length === 0)
    return <Loading what={`the history of ${id}`} />;
  if (pages.first.is === "failed") return <Failure error={pages.first.error} onRetry={pages.again} />;
  return (
    <>
      <div class="tools">
        <label class="inline-field">
          Field
          <select value={field ?? ""} onChange={event => setQuery({ field: event.currentTarget.value })}>
            <option value="">any</option>
            {fields.map(name => (
              <option key={name} value={name}>
                {label(name)}
              </option>
            ))}
          </select>
        </label>
        <label class="inline-field">
          What
          <select value={filter.type ?? ""} onChange={event => setQuery({ type: event.currentTarget.value })}>
            <option value="">anything</option>
            {EVENT_TYPES.map(type => (
              <option key={type} value={type}>
                {typeText(type)}
              </option>
            ))}
          </select>
        </label>
        <Search
          label="Search reasons and names"
          placeholder="Reason or name"
          value={filter.text ?? ""}
          onSearch={text => setQuery({ text })}
        />
        {base !== null && (
          <p class="quiet" role="status">
            Choose the version to compare v{base} with
          </p>
        )}
      </div>
      {shown.length === 0 && <Empty title="Nothing in the history fits these filters" />}
      <ol class="entries">
        {shown.map(entry => (
          <EntryItem
            key={entry.position}
            entry={entry}
            named={false}
            chosen={isModelEvent(entry) && base === entry.version}
          >
            {isModelEvent(entry) && (
              <Ways entry={entry} model={model} base={base} onCompare={compare} onWay={setWay} />
            )}
          </EntryItem>
        ))}
      </ol>
      {pages.older && (
        <p>
          <button type="button" class="button" onClick={() => void pages.older?.()}>
            Show older
          </button>
        </p>
      )}
      <Problem error={pages.error} />
      {way && model && (
        <WayBackDialog id={id} current={model.version} way={way} onClose={() => setWay(null)} />
      )}
    </>
  );
}

interface WaysProps {
  readonly entry: Entry;
  readonly model: Model | undefined;
  readonly base: number | null;
  readonly onCompare: (version: number) => void;
  readonly onWay: (way: Way) => void;
}

function Ways({ entry: { version, type }, model, base, onCompare, onWay }: WaysProps) {
  const current = model?.version === version;
  const can = model && may("models:change");
  return (
    <>
      {current && <span class="badge">current</span>}
      <button
        type="button"
        class="button button-small button-quiet"
        aria-pressed={base === version}
        onClick={() => onCompare(version)}
      >
        Compare<span class="hidden"> v{version}</span>
      </button>
      {can && !current && type !== "model.deleted" && (
        <button
          type="button"
          class="button button-small button-quiet"
          onClick={() => onWay({ kind: "rollback", version })}
        >
          Roll back to this<span class="hidden"> v{version}</span>
        </button>
      )}
      {can && (type === "model.updated" || type === "model.rolled_back") && (
        <button
          type="button"
          class="button button-small button-quiet"
          onClick={() => onWay({ kind: "undo", version })}
        >
          Undo this change<span class="hidden"> v{version}</span>
        </button>
      )}
    </>
  );
}
