import type { Model } from "../../api/types";
import { Time } from "../../components/Time";
import { may } from "../../state/session";
import { host, providerName } from "../../text/fields";
import { duration, number } from "../../text/times";
import { visible } from "../../text/visible";
import { Actions } from "./Actions";

export function Card({ id, model }: { readonly id: string; readonly model: Model }) {
  const address = `/models/${encodeURIComponent(id)}`;
  const name = `card-${id}`;
  return (
    <li class={model.enabled ? "card" : "card card-off"}>
      <article aria-labelledby={name}>
        <header class="card-head">
          <h2 id={name} class="figure">
            <a href={address}>{id}</a>
          </h2>
          <Badges model={model} />
          <span class="push" />
          <p class="quiet card-change">
            <a href={`${address}/versions/${model.version}`} class="figure">
              v{model.version}
            </a>
            {" · "}
            <Time at={model.updated_at} />
            {" · "}
            {visible(model.updated_by.name)}
          </p>
        </header>
        <p class="card-name">
          {visible(model.name)}
          {model.description && <span class="quiet"> — {visible(model.description)}</span>}
        </p>
        <Facts model={model} />
        <footer class="card-foot">
          <p class="quiet card-host" title={host(model)}>
            {providerName(model)} · <span class="figure">{host(model)}</span>
          </p>
          <span class="push" />
          <a class="button button-small button-quiet" href={`${address}/history`}>
            History<span class="hidden"> of {id}</span>
          </a>
          {may("models:change") && (
            <a class="button button-small" href={`${address}/edit`}>
              Edit<span class="hidden"> {id}</span>
            </a>
          )}
          <Actions id={id} model={model} />
        </footer>
      </article>
    </li>
  );
}

export function Badges({ model }: { readonly model: Model }) {
  return (
    <>
      {model.is_default && <span class="badge">default</span>}
      {!model.enabled && <span class="badge badge-off">disabled</span>}
    </>
  );
}

function Facts({ model }: { readonly model: Model }) {
  const facts: [string, string][] = [
    ["Max tokens", number(model.max_tokens)],
    ["API version", model.provider === "azure" ? (model.api_version ?? "not set") : "not used"],
    ["Streaming", model.supports_streaming ? "yes" : "no"],
    ["Temperature", model.supports_temperature ? "yes" : "no"],
    ["Timeout", `${duration(model.base_timeout)} to ${duration(model.max_timeout)}`],
  ];
  return (
    <dl class="facts">
      {facts.map(([label, value]) => (
        <div key={label}>
          <dt>{label}</dt>
          <dd class="figure">{value}</dd>
        </div>
      ))}
    </dl>
  );
}
