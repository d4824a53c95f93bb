import { useEffect } from "preact/hooks";
import * as api from "../../api/models";
import { Empty, Failure, Loading } from "../../components/States";
import { Time } from "../../components/Time";
import { useRead } from "../../components/useRead";
import { newest } from "../../state/live";
import { models } from "../../state/models";
import { may } from "../../state/session";
import { useStore } from "../../state/store";
import { host } from "../../text/fields";
import { who } from "../../text/sentences";
import { visible } from "../../text/visible";
import { tell } from "./Actions";

/** What is out of service, for ever on record, and one step from being back. */
export function Deleted() {
  const listing = useStore(models);
  const news = useStore(newest);
  const [read, again] = useRead(api.deleted, news?.type === "model.deleted" ? String(news.position) : "");
  useEffect(() => {
    document.title = "Deleted models · Model Ledger";
  }, []);
  const live = listing.is === "ready" ? listing.byId : new Map();
  const gone = read.is === "ready" ? read.value.filter(entry => !live.has(entry.model_id ?? "")) : [];
  return (
    <div class="view">
      <nav class="crumbs" aria-label="Where this is">
        <a href="/models">Models</a>
      </nav>
      <header class="view-head">
        <h1>Deleted models</h1>
      </header>
      {read.is === "loading" && <Loading what="deleted models" />}
      {read.is === "failed" && <Failure error={read.error} onRetry={again} />}
      {read.is === "ready" && gone.length === 0 && (
        <Empty title="Nothing is deleted">
          <p class="quiet">Models that are deleted wait here, with their whole history.</p>
        </Empty>
      )}
      <ul class="rows">
        {gone.map(entry => (
          <li key={entry.position} class="row-item">
            <div>
              <a class="figure" href={`/models/${encodeURIComponent(entry.model_id ?? "")}/history`}>
                {entry.model_id}
              </a>
              <p class="quiet">
                {visible(entry.config?.name ?? "")} · {entry.config && host(entry.config as never)} · deleted
                by {who(entry)} <Time at={entry.at} />
                {entry.reason && ` · “${visible(entry.reason)}”`}
              </p>
            </div>
            <span class="push" />
            {may("models:change") && (
              <button
                type="button"
                class="button"
                onClick={() =>
                  void tell(() => api.restore(entry.model_id ?? ""), `${entry.model_id} is back`)
                }
              >
                Bring back<span class="hidden"> {entry.model_id}</span>
              </button>
            )}
          </li>
        ))}
      </ul>
    </div>
  );
}
