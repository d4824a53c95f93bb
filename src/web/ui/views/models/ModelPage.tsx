import { useEffect } from "preact/hooks";
import { Refused } from "../../api/client";
import * as api from "../../api/models";
import type { Model } from "../../api/types";
import { Icon } from "../../components/Icon";
import { Empty, Failure, Loading } from "../../components/States";
import { Time } from "../../components/Time";
import { useRead } from "../../components/useRead";
import { models, readModels } from "../../state/models";
import { may } from "../../state/session";
import { useStore } from "../../state/store";
import { configOf, inOrder, label, valueText } from "../../text/fields";
import { LIMITS } from "../../text/limits";
import { visible } from "../../text/visible";
import { History } from "../history/History";
import { Actions, tell } from "./Actions";
import { Badges } from "./Card";

interface Props {
  readonly id: string;
  readonly tab: "configuration" | "history";
}

/** One model: its configuration with who set each field, and its history. */
export function ModelPage({ id, tab }: Props) {
  const listing = useStore(models);
  const model = listing.is === "ready" ? listing.byId.get(id) : undefined;
  const address = `/models/${encodeURIComponent(id)}`;
  useEffect(() => {
    document.title = `${id} · Model Ledger`;
  }, [id]);
  return (
    <div class="view">
      <nav class="crumbs" aria-label="Where this is">
        <a href="/models">Models</a>
      </nav>
      <header class="view-head">
        <h1 class="figure">{id}</h1>
        {model && <Badges model={model} />}
        {!model && listing.is === "ready" && <span class="badge badge-off">not in service</span>}
        <span class="push" />
        {model?.enabled && (
          <a class="button button-quiet" href={`/chat?model=${encodeURIComponent(id)}`}>
            <Icon name="chat" /> Chat
          </a>
        )}
        {model && may("models:change") && (
          <a class="button button-primary" href={`${address}/edit`}>
            <Icon name="edit" /> Edit
          </a>
        )}
        {model && <Actions id={id} model={model} />}
      </header>
      {model && (
        <p class="lead">
          {visible(model.name)}
          {model.description && <span class="quiet"> — {visible(model.description)}</span>}
        </p>
      )}
      <nav class="subnav" aria-label={`About ${id}`}>
        <a href={address} aria-current={tab === "configuration" ? "page" : undefined}>
          Configuration
        </a>
        <a href={`${address}/history`} aria-current={tab === "history" ? "page" : undefined}>
          History
        </a>
      </nav>
      {listing.is === "loading" && <Loading what={id} />}
      {listing.is === "failed" && <Failure error={listing.error} onRetry={() => void readModels()} />}
      {listing.is === "ready" && tab === "history" && <History id={id} model={model} />}
      {listing.is === "ready" &&
        tab === "configuration" &&
        (model ? <Configuration id={id} model={model} /> : <Gone id={id} />)}
    </div>
  );
}

function Configuration({ id, model }: { readonly id: string; readonly model: Model }) {
  const [read] = useRead(() => api.blame(id), `${id} ${model.version}`);
  const config = configOf(model);
  const fields = inOrder([
    ...Object.keys(LIMITS).filter(field => isMeant(field, model)),
    ...Object.keys(config),
  ]);
  return (
    <table class="sheet">
      <caption class="hidden">The configuration, version {model.version}</caption>
      <thead>
        <tr>
          <th scope="col">Field</th>
          <th scope="col">Value</th>
          <th scope="col">Set by</th>
        </tr>
      </thead>
      <tbody>
        {fields.map(field => {
          const blame = read.is === "ready" ? read.value[field] : undefined;
          return (
            <tr key={field}>
              <th scope="row">{label(field)}</th>
              <td class={config[field] === undefined ? "quiet" : "figure"}>
                {config[field] === undefined ? unset(field, id) : valueText(field, config[field])}
              </td>
              <td class="quiet sheet-blame">
                {blame && (
                  <>
                    <a class="figure" href={`/models/${encodeURIComponent(id)}/versions/${blame.version}`}>
                      v{blame.version}
                    </a>{" "}
                    · {visible(blame.actor.name)} · <Time at={blame.at} />
                  </>
                )}
              </td>
            </tr>
          );
        })}
      </tbody>
    </table>
  );
}

/** What holds for a field that is not set. */
const unset = (field: string, id: string) =>
  LIMITS[field]?.kind === "list" ? "none" : field === "deployment" ? id : "derived";

const isMeant = (field: string, model: Model) =>
  field !== (model.provider === "azure" ? "base_url" : "azure_endpoint") &&
  (model.provider === "azure" || field !== "api_version");

function Gone({ id }: { readonly id: string }) {
  const [read, again] = useRead(() => api.history(id, { limit: 1 }), id);
  const newest = read.is === "ready" ? read.value.data[0] : undefined;
  if (read.is === "loading") return <Loading what={id} />;
  if (read.is === "failed" && !(read.error instanceof Refused && read.error.status === 404)) {
    return <Failure error={read.error} onRetry={again} />;
  }
  if (!newest) {
    return (
      <Empty title={`There never was a model “${id}”`}>
        <p>
          <a href={`/models/~new?id=${encodeURIComponent(id)}`}>Add it</a>, or{" "}
          <a href="/models">see all models</a>.
        </p>
      </Empty>
    );
  }
  return (
    <Empty title={`${id} is deleted`}>
      <p>
        {visible(newest.actor.name)} deleted it <Time at={newest.at} />
        {newest.reason && `: “${visible(newest.reason)}”`}.
      </p>
      {may("models:change") && (
        <p>
          <button
            type="button"
            class="button button-primary"
            onClick={() => void tell(() => api.restore(id), `${id} is back`)}
          >
            Bring it back
          </button>
        </p>
      )}
    </Empty>
  );
}
