import { useEffect } from "preact/hooks";
import { queryText } from "../../api/client";
import * as api from "../../api/models";
import { Search } from "../../components/Search";
import { Empty, Failure, Loading, Problem } from "../../components/States";
import { newest } from "../../state/live";
import { setQuery, usePlace } from "../../state/router";
import { useStore } from "../../state/store";
import { EVENT_TYPES, SOURCES, typeText } from "../../text/sentences";
import { EntryItem } from "./EntryItem";
import { usePages } from "./usePages";

const FILTERS = ["model", "type", "source", "actor", "since", "until", "text"] as const;

/** Everything that was ever recorded, newest first; the filters stand in the address. */
export function Audit() {
  const { query } = usePlace();
  const news = useStore(newest);
  const asked = Object.fromEntries(FILTERS.map(name => [name, query.get(name)]));
  const filter = {
    ...asked,
    since: instant(asked.since, "00:00:00"),
    until: instant(asked.until, "23:59:59.999"),
  };
  const pages = usePages(
    cursor => api.events({ ...filter, cursor, limit: 50 }),
    `${JSON.stringify(filter)} ${news?.position ?? 0}`,
  );
  const filtered = FILTERS.some(name => query.get(name));
  useEffect(() => {
    document.title = "Audit log · Model Ledger";
  }, []);
  useEffect(() => {
    if (pages.first.is === "ready" && location.hash)
      document.getElementById(location.hash.slice(1))?.scrollIntoView();
  }, [pages.first.is]);
  return (
    <div class="view">
      <header class="view-head">
        <h1>Audit log</h1>
        <span class="push" />
        <a
          class="button button-quiet"
          download
          href={`/api/config/events${queryText({ ...filter, format: "jsonl" })}`}
        >
          Export JSON Lines
        </a>
        <a
          class="button button-quiet"
          download
          href={`/api/config/events${queryText({ ...filter, format: "csv" })}`}
        >
          Export CSV
        </a>
      </header>
      <div class="tools">
        <Search
          label="Search reasons, people and models"
          placeholder="Reason, person or model"
          value={asked.text ?? ""}
          onSearch={text => setQuery({ text })}
        />
        <Pick
          name="type"
          told="What"
          any="anything"
          value={asked.type}
          choices={EVENT_TYPES.map(type => [type, typeText(type)])}
        />
        <Pick
          name="source"
          told="From"
          any="anywhere"
          value={asked.source}
          choices={Object.entries(SOURCES)}
        />
        <label class="inline-field">
          Since
          <input
            type="date"
            value={asked.since ?? ""}
            onChange={event => setQuery({ since: event.currentTarget.value })}
          />
        </label>
        <label class="inline-field">
          Until
          <input
            type="date"
            value={asked.until ?? ""}
            onChange={event => setQuery({ until: event.currentTarget.value })}
          />
        </label>
        {filtered && (
          <button
            type="button"
            class="button button-small"
            onClick={() => setQuery(Object.fromEntries(FILTERS.map(name => [name, null])))}
          >
            Clear all
          </button>
        )}
      </div>
      {pages.first.is === "loading" && <Loading what="the audit log" />}
      {pages.first.is === "failed" && <Failure error={pages.first.error} onRetry={pages.again} />}
      {pages.first.is === "ready" && pages.entries.length === 0 && (
        <Empty title={filtered ? "No event fits these filters" : "Nothing is recorded yet"} />
      )}
      <ol class="entries">
        {pages.entries.map(entry => (
          <EntryItem
            key={entry.position}
            entry={entry}
            named
            lead={
              <a href={`#event-${entry.position}`} class="quiet" aria-label={`Event ${entry.position}`}>
                {entry.position}
              </a>
            }
            beside={
              entry.model_id && (
                <>
                  {" · "}
                  <a href={`/models/${encodeURIComponent(entry.model_id)}/history`}>
                    history<span class="hidden"> of {entry.model_id}</span>
                  </a>
                </>
              )
            }
          />
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
    </div>
  );
}

interface PickProps {
  readonly name: string;
  readonly told: string;
  readonly any: string;
  readonly value: string | null | undefined;
  readonly choices: readonly (readonly [value: string, told: string])[];
}

function Pick({ name, told, any, value, choices }: PickProps) {
  return (
    <label class="inline-field">
      {told}
      <select value={value ?? ""} onChange={event => setQuery({ [name]: event.currentTarget.value })}>
        <option value="">{any}</option>
        {choices.map(([choice, text]) => (
          <option key={choice} value={choice}>
            {text}
          </option>
        ))}
      </select>
    </label>
  );
}

/** A day of the reader's as the instant that the server takes. */
function instant(day: string | null | undefined, time: string): string | null {
  if (!day) return null;
  const at = new Date(`${day}T${time}`);
  return Number.isNaN(at.getTime()) ? null : at.toISOString();
}
