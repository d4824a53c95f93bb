import { useEffect } from "preact/hooks";
import { Icon } from "../../components/Icon";
import { Search } from "../../components/Search";
import { Empty, Failure, Loading } from "../../components/States";
import { models, readModels } from "../../state/models";
import { setQuery, usePlace } from "../../state/router";
import { may } from "../../state/session";
import { useStore } from "../../state/store";
import { arranged, ORDERS, type Order } from "./arranged";
import { Card } from "./Card";

const MOST = 120;

/** Every live model as a card; search and order stand in the address. */
export function Cards() {
  const listing = useStore(models);
  const { query } = usePlace();
  const text = query.get("q") ?? "";
  const order = (query.get("sort") ?? "id") as Order;
  useEffect(() => {
    document.title = "Models · Model Ledger";
  }, []);
  const shown = listing.is === "ready" ? arranged(listing.byId, text, order in ORDERS ? order : "id") : [];
  const count = listing.is === "ready" ? listing.byId.size : 0;
  return (
    <div class="view">
      <header class="view-head">
        <h1>Models</h1>
        {listing.is === "ready" && <span class="quiet figure">{count}</span>}
        <span class="push" />
        <button type="button" class="button button-quiet" onClick={() => void readModels()}>
          <Icon name="again" /> Refresh
        </button>
        {may("models:change") && (
          <a class="button button-primary" href="/models/~new">
            <Icon name="plus" /> Add model
          </a>
        )}
      </header>
      {listing.is === "loading" && <Loading what="the models" />}
      {listing.is === "failed" && <Failure error={listing.error} onRetry={() => void readModels()} />}
      {listing.is === "ready" && count === 0 && <FirstRun />}
      {count > 0 && (
        <>
          <div class="tools">
            <Search
              label="Search models"
              placeholder="Search by id, name, description or host"
              value={text}
              onSearch={wanted => setQuery({ q: wanted })}
            />
            <label class="inline-field">
              Sort by
              <select value={order} onChange={event => setQuery({ sort: event.currentTarget.value })}>
                {Object.entries(ORDERS).map(([name, told]) => (
                  <option key={name} value={name}>
                    {told}
                  </option>
                ))}
              </select>
            </label>
          </div>
          {shown.length === 0 && (
            <Empty title="No model holds these words">
              <p>
                <button type="button" class="button" onClick={() => setQuery({ q: null })}>
                  Show all {count}
                </button>
              </p>
            </Empty>
          )}
          <ul class="cards">
            {shown.slice(0, MOST).map(([id, model]) => (
              <Card key={id} id={id} model={model} />
            ))}
          </ul>
          {shown.length > MOST && (
            <p class="quiet">{shown.length - MOST} more: narrow the search to see them</p>
          )}
        </>
      )}
    </div>
  );
}

function FirstRun() {
  return (
    <Empty title="No models yet">
      <p>A model is an address, a few limits and a name that programs call it by.</p>
      {may("models:change") ? (
        <p class="row">
          <a class="button button-primary" href="/models/~new">
            Add an Azure OpenAI model
          </a>
          <a class="button" href="/models/~new?provider=openai">
            Add an OpenAI-compatible one
          </a>
        </p>
      ) : (
        <p class="quiet">An administrator can add one.</p>
      )}
    </Empty>
  );
}
