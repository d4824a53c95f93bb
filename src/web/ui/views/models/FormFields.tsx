import type { ComponentChildren } from "preact";
import type { Fields } from "../../api/types";
import { type Draft, shownFields } from "../../state/draft";
import { label } from "../../text/fields";
import { LIMITS, timeoutFor } from "../../text/limits";
import { duration, number } from "../../text/times";

interface Props {
  /** Null for a model that is yet to be added. */
  readonly id: string | null;
  readonly draft: Draft;
  readonly config: Fields;
  readonly problems: Readonly<Record<string, string>>;
  readonly onWrite: (field: string, text: string) => void;
  readonly onLeave: (field: string) => void;
}

const PLACED = new Set([
  "name",
  "description",
  "provider",
  "azure_endpoint",
  "base_url",
  "api_version",
  "deployment",
  "credential",
  "max_tokens",
  "supports_streaming",
  "supports_temperature",
  "enabled",
  "base_timeout",
  "max_timeout",
  "token_factor",
]);

/** The sections of the form; fields that a later release has added appear among the advanced ones. */
export function FormFields(props: Props) {
  const { id, draft, config } = props;
  const provider = draft.texts.provider ?? "azure";
  const further = shownFields(provider).filter(field => !PLACED.has(field));
  const wrong = ["base_timeout", "max_timeout", "token_factor", ...further].some(
    field => props.problems[field],
  );
  return (
    <>
      <Section title="Identity">
        {id === null ? (
          <Text
            {...props}
            field="model_id"
            name="Model ID"
            hint="Callers name it. It can never be changed."
            mono
          />
        ) : (
          <div class="field">
            <label for="field-model_id">Model ID</label>
            <input id="field-model_id" class="figure" value={id} readOnly aria-describedby="hint-model_id" />
            <p class="hint" id="hint-model_id">
              Callers name it, so it cannot be changed. To rename, duplicate the model.
            </p>
          </div>
        )}
        <Text {...props} field="name" hint="A label for people." />
        <Text {...props} field="description" hint="Optional: what it is for, who owns it." long />
      </Section>
      <Section title="Endpoint">
        <Choose
          {...props}
          field="provider"
          choices={[
            ["azure", "Azure OpenAI"],
            ["openai", "OpenAI-compatible"],
          ]}
          hint="How calls are addressed and authenticated."
        />
        {provider === "openai" ? (
          <Text {...props} field="base_url" hint="Such as https://api.example.com/v1" mono />
        ) : (
          <>
            <Text
              {...props}
              field="azure_endpoint"
              hint="Such as https://your-resource.openai.azure.com"
              mono
            />
            <Text {...props} field="api_version" hint="The api-version of each call." mono />
          </>
        )}
        <Text
          {...props}
          field="deployment"
          hint={`The provider’s own name for it; ${draft.id || "the model ID"} when left empty.`}
          mono
        />
        <Choose
          {...props}
          field="credential"
          choices={[
            ["environment", "The service’s key (environment)"],
            ["", "None: send no key"],
          ]}
          hint="Keys are never shown here, and go only to the origins that the operator allows."
        />
      </Section>
      <Section title="Limits and abilities">
        <Text {...props} field="max_tokens" unit="tokens" hint={LIMITS.max_tokens?.description ?? ""} mono />
        <Switch {...props} field="supports_streaming" />
        <Switch {...props} field="supports_temperature" />
        <Switch {...props} field="enabled" />
      </Section>
      <details class="section advanced" open={wrong || undefined}>
        <summary>Advanced settings</summary>
        <div class="section-body">
          <Text {...props} field="base_timeout" unit="s" hint={LIMITS.base_timeout?.description ?? ""} mono />
          <Text {...props} field="max_timeout" unit="s" hint={LIMITS.max_timeout?.description ?? ""} mono />
          <Text
            {...props}
            field="token_factor"
            unit="s per token"
            hint={LIMITS.token_factor?.description ?? ""}
            mono
          />
          <TimeoutExample config={config} />
          {further.map(field => (
            <Further key={field} {...props} field={field} />
          ))}
        </div>
      </details>
    </>
  );
}

function Section({ title, children }: { readonly title: string; readonly children: ComponentChildren }) {
  return (
    <fieldset class="section">
      <legend>{title}</legend>
      <div class="section-body">{children}</div>
    </fieldset>
  );
}

/** What the three figures come to, for answers of several lengths. */
function TimeoutExample({ config }: { readonly config: Fields }) {
  const told = [1_000, 8_000, 32_000].map(tokens => [tokens, timeoutFor(config, 0, tokens)] as const);
  const sound = told.every(([, seconds]) => Number.isFinite(seconds) && seconds > 0);
  return (
    <output class="example">
      {sound
        ? told.map(([tokens, seconds]) => (
            <span key={tokens}>
              {number(tokens)} tokens <strong class="figure">{duration(seconds)}</strong>
            </span>
          ))
        : "The time that a call gets follows from these three."}
    </output>
  );
}

function Further(props: Props & { readonly field: string }) {
  const rule = LIMITS[props.field];
  const hint = rule?.description.replaceAll("`", "") ?? "";
  if (rule?.kind === "flag") {
    return (
      <Choose
        {...props}
        hint={hint}
        choices={[
          ["", "Derived"],
          ["true", "Yes"],
          ["false", "No"],
        ]}
      />
    );
  }
  if (rule?.kind === "choice") {
    return <Choose {...props} hint={hint} choices={(rule.choices ?? []).map(choice => [choice, choice])} />;
  }
  return (
    <Text
      {...props}
      hint={rule?.kind === "list" ? `${hint} One a line.` : hint}
      long={rule?.kind === "list"}
      mono
    />
  );
}

interface TextProps extends Props {
  readonly field: string;
  readonly name?: string;
  readonly hint?: string;
  readonly unit?: string;
  readonly mono?: boolean;
  readonly long?: boolean;
}

function Text({ field, name, hint, unit, mono, long, draft, problems, onWrite, onLeave }: TextProps) {
  const problem = problems[field];
  const rule = LIMITS[field];
  const numeric = rule?.kind === "number" || rule?.kind === "integer";
  const shared = {
    id: `field-${field}`,
    name: field,
    value: field === "model_id" ? draft.id : (draft.texts[field] ?? ""),
    class: mono ? "figure" : undefined,
    spellcheck: !mono,
    autoComplete: "off",
    "aria-invalid": problem !== undefined,
    "aria-describedby": `hint-${field}`,
    onBlur: () => onLeave(field),
  } as const;
  return (
    <div class={problem ? "field field-wrong" : "field"}>
      <label for={`field-${field}`}>
        {name ?? label(field)}
        {unit && <span class="unit"> ({unit})</span>}
      </label>
      {long ? (
        <textarea {...shared} rows={2} onInput={event => onWrite(field, event.currentTarget.value)} />
      ) : (
        <input
          {...shared}
          inputMode={numeric ? "decimal" : undefined}
          onInput={event => onWrite(field, event.currentTarget.value)}
        />
      )}
      <Below field={field} problem={problem} hint={hint} />
    </div>
  );
}

interface BelowProps {
  readonly field: string;
  readonly problem: string | undefined;
  readonly hint: string | undefined;
}

/** One line below a field: its hint, or what is wrong. What comes up in its place moves nothing that is aimed at. */
function Below({ field, problem, hint }: BelowProps) {
  return (
    <p class={problem ? "field-problem" : "hint"} id={`hint-${field}`}>
      {problem ?? hint}
    </p>
  );
}

interface ChooseProps extends Props {
  readonly field: string;
  readonly choices: readonly (readonly [value: string, told: string])[];
  readonly hint?: string;
}

function Choose({ field, choices, hint, draft, problems, onWrite }: ChooseProps) {
  const problem = problems[field];
  return (
    <div class={problem ? "field field-wrong" : "field"}>
      <label for={`field-${field}`}>{label(field)}</label>
      <select
        id={`field-${field}`}
        name={field}
        value={draft.texts[field] ?? ""}
        aria-invalid={problem !== undefined}
        aria-describedby={`hint-${field}`}
        onChange={event => onWrite(field, event.currentTarget.value)}
      >
        {choices.map(([value, told]) => (
          <option key={value} value={value}>
            {told}
          </option>
        ))}
      </select>
      <Below field={field} problem={problem} hint={hint} />
    </div>
  );
}

function Switch({ field, draft, onWrite }: Props & { readonly field: string }) {
  return (
    <div class="field field-switch">
      <input
        type="checkbox"
        role="switch"
        aria-checked={draft.texts[field] === "true"}
        id={`field-${field}`}
        name={field}
        checked={draft.texts[field] === "true"}
        aria-describedby={`hint-${field}`}
        onChange={event => onWrite(field, String(event.currentTarget.checked))}
      />
      <label for={`field-${field}`}>{label(field)}</label>
      <p class="hint" id={`hint-${field}`}>
        {LIMITS[field]?.description}
      </p>
    </div>
  );
}
