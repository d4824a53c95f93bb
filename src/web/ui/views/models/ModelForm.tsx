import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { Refused } from "../../api/client";
import * as api from "../../api/models";
import type { Entry, Fields, Model, Stale } from "../../api/types";
import { Failure, Loading } from "../../components/States";
import { Time } from "../../components/Time";
import { useRead } from "../../components/useRead";
import { configOfDraft, type Draft, draftOf, newDraft } from "../../state/draft";
import { newest } from "../../state/live";
import { models, readModels } from "../../state/models";
import { notify } from "../../state/notices";
import { currentPlace, go, guardLeaving, letGo } from "../../state/router";
import { useStore } from "../../state/store";
import { configOf, label } from "../../text/fields";
import { problems as problemsOf } from "../../text/limits";
import { difference } from "../../text/merge";
import { who } from "../../text/sentences";
import { ConflictDialog, type Newer } from "./ConflictDialog";
import { ConnectionTest } from "./ConnectionTest";
import { FormFields } from "./FormFields";
import { LeaveDialog } from "./LeaveDialog";
import { ReviewDialog } from "./ReviewDialog";

/** Add a model (`id` null) or change one: fields, then a review of what will change, then the save. */
export function ModelForm({ id }: { readonly id: string | null }) {
  const { query } = currentPlace();
  const source = id ?? query.get("from");
  const [read, again] = useRead<Model | null>(
    () => (source ? api.read(source) : Promise.resolve(null)),
    source ?? "",
  );
  useEffect(() => {
    document.title = `${id ? `Edit ${id}` : "Add model"} · Model Ledger`;
  }, [id]);
  return (
    <div class="view view-form">
      <nav class="crumbs" aria-label="Where this is">
        <a href="/models">Models</a>
        {id && (
          <>
            {" / "}
            <a class="figure" href={`/models/${encodeURIComponent(id)}`}>
              {id}
            </a>
          </>
        )}
      </nav>
      <header class="view-head">
        <h1>{id ? "Edit model" : "Add model"}</h1>
      </header>
      {read.is === "loading" && <Loading what={source ?? "the form"} />}
      {read.is === "failed" && <Failure error={read.error} onRetry={again} />}
      {read.is === "ready" && <Form id={id} model={read.value} />}
    </div>
  );
}

/** What the draft is compared with, and what a save must find unchanged. */
interface Base {
  readonly version: number | null;
  readonly config: Fields;
}

function begin(id: string | null, model: Model | null): { base: Base; draft: Draft } {
  if (id && model) {
    const config = configOf(model);
    return { base: { version: model.version, config }, draft: draftOf(id, config) };
  }
  const { query } = currentPlace();
  const start: Record<string, string> = {};
  if (query.get("provider") === "openai") start.provider = "openai";
  const draft = newDraft(query.get("id") ?? "", model ? copyOf(model) : start);
  return { base: { version: null, config: {} }, draft };
}

/** A duplicate: everything but the names that must be its own. */
function copyOf(model: Model): Fields {
  const { aliases: _, ...config } = configOf(model);
  return config;
}

/** Milliseconds that a click may take: what it aims at must not move because a field was left for it. */
const CLICK = 150;

type Step = null | "review" | { readonly conflict: Newer } | { readonly leave: () => void };

function Form({ id, model }: { readonly id: string | null; readonly model: Model | null }) {
  const first = useMemo(() => begin(id, model), []);
  const form = useRef<HTMLFormElement>(null);
  const [base, setBase] = useState(first.base);
  const [draft, setDraft] = useState(first.draft);
  const [touched, setTouched] = useState<ReadonlySet<string>>(new Set());
  const [refused, setRefused] = useState<Readonly<Record<string, string>>>({});
  const [step, setStep] = useState<Step>(null);
  const config = configOfDraft(draft, base.config);
  const found = problemsOf(id === null ? draft.id : null, config);
  const changes = difference(base.config, config);
  const dirty = id ? changes.length > 0 : draft !== first.draft;
  const latest = useNews(id, base.version);

  useEffect(() => {
    if (!dirty) return;
    const warn = (event: BeforeUnloadEvent) => event.preventDefault();
    addEventListener("beforeunload", warn);
    const open = guardLeaving(leave => {
      setStep({ leave });
      return false;
    });
    return () => {
      removeEventListener("beforeunload", warn);
      open();
    };
  }, [dirty]);

  const shown: Record<string, string> = {};
  for (const field of touched) if (found[field]) shown[field] = found[field];
  Object.assign(shown, refused);

  const write = (field: string, text: string) => {
    setDraft(
      field === "model_id" ? { ...draft, id: text } : { ...draft, texts: { ...draft.texts, [field]: text } },
    );
    if (refused[field]) {
      const { [field]: _, ...rest } = refused;
      setRefused(rest);
    }
  };
  const [refusals, setRefusals] = useState(0);
  const [note, setNote] = useState("");
  const focusFirst = () => setRefusals(refusals + 1);
  useLayoutEffect(() => {
    if (refusals === 0) return;
    const wrong = form.current?.querySelector<HTMLElement>("[aria-invalid=true]");
    const folded = wrong?.closest("details");
    if (folded) folded.open = true;
    wrong?.focus();
  }, [refusals]);
  const review = () => {
    setNote("");
    setTouched(new Set(["model_id", ...Object.keys(found)]));
    if (Object.keys(found).length > 0) {
      setNote("Not yet: some fields need another look");
      focusFirst();
    } else if (id && changes.length === 0) notify("Nothing changed, nothing to save", "plain");
    else setStep("review");
  };
  const save = async (reason: string) => {
    try {
      const target = id ?? draft.id;
      const receipt = id
        ? await api.replace(id, config, { version: base.version ?? undefined, reason })
        : await api.create(target, config, reason);
      letGo();
      await readModels();
      notify(id ? `${target} is saved as v${receipt.version}` : `${target} is added and answers calls now`);
      go(`/models/${encodeURIComponent(target)}`);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (error.status === 412) return setStep({ conflict: newerOf(error.problem as Stale) });
      const told = byField(error);
      if (Object.keys(told).length === 0) throw error;
      setRefused(told);
      setStep(null);
      setNote("Not saved: some fields need another look");
      focusFirst();
    }
  };
  const takeMerged = (newer: Newer, merged: Fields) => {
    setBase({ version: newer.version, config: newer.config });
    setDraft(draftOf(draft.id, merged));
    setStep("review");
  };
  return (
    <form
      ref={form}
      noValidate
      class="form"
      onSubmit={event => {
        event.preventDefault();
        review();
      }}
      onKeyDown={event => {
        if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && step === null) review();
      }}
    >
      {latest && id && (
        <News
          entry={latest}
          onReview={() => setStep({ conflict: { ...latestOf(latest) } })}
          onRestore={async () => {
            const receipt = await api.restore(id, "brought back to keep edits that were open");
            setBase({ ...base, version: receipt.version });
            await readModels();
            notify(`${id} is back; your edits are still here`);
          }}
        />
      )}
      <FormFields
        id={id}
        draft={draft}
        config={config}
        problems={shown}
        onWrite={write}
        onLeave={field => setTimeout(() => setTouched(before => new Set([...before, field])), CLICK)}
      />
      <ConnectionTest id={id ?? draft.id} config={config} blocked={Object.keys(found).length > 0} />
      <footer class="form-foot">
        <a class="button" href={id ? `/models/${encodeURIComponent(id)}` : "/models"}>
          Cancel
        </a>
        <span class="push" />
        <span class="field-problem" role="alert">
          {note}
        </span>
        {id && dirty && note === "" && (
          <span class="quiet">
            {changes.length === 1 ? "One field differs" : `${changes.length} fields differ`}
          </span>
        )}
        <button type="submit" class="button button-primary">
          {id ? "Review changes" : "Review and add"}
        </button>
      </footer>
      {step === "review" && (
        <ReviewDialog
          title={id ? `Save ${id}?` : `Add ${draft.id}?`}
          version={base.version}
          changes={id ? changes : []}
          config={config}
          action={
            id ? `Save, ${changes.length === 1 ? "1 field" : `${changes.length} fields`}` : `Add ${draft.id}`
          }
          onSave={save}
          onClose={() => setStep(null)}
        />
      )}
      {step !== null && typeof step === "object" && "conflict" in step && (
        <ConflictDialog
          newer={step.conflict}
          base={base.config}
          mine={config}
          onMerge={merged => takeMerged(step.conflict, merged)}
          onClose={() => setStep(null)}
        />
      )}
      {step !== null && typeof step === "object" && "leave" in step && (
        <LeaveDialog
          onStay={() => setStep(null)}
          onLeave={() => {
            letGo();
            step.leave();
          }}
        />
      )}
    </form>
  );
}

/** What somebody else has saved since the form was opened. */
function useNews(id: string | null, version: number | null): Entry | null {
  const [held, setHeld] = useState<Entry | null>(null);
  const entry = useStore(newest);
  useEffect(() => {
    if (entry && entry.model_id === id && entry.type.startsWith("model.")) setHeld(entry);
  }, [entry, id]);
  return held && version !== null && held.version > version ? held : null;
}

interface NewsProps {
  readonly entry: Entry;
  readonly onReview: () => void;
  readonly onRestore: () => Promise<void>;
}

function News({ entry, onReview, onRestore }: NewsProps) {
  const listing = useStore(models);
  const gone =
    entry.type === "model.deleted" && listing.is === "ready" && !listing.byId.has(entry.model_id ?? "");
  return (
    <div class="banner" role="status">
      {gone ? (
        <>
          <p>
            {who(entry)} deleted this model <Time at={entry.at} />. Your edits are still here.
          </p>
          <button type="button" class="button button-small" onClick={() => void onRestore()}>
            Bring it back
          </button>
        </>
      ) : (
        <>
          <p>
            {who(entry)} saved v{entry.version} <Time at={entry.at} />
            {entry.changes.length > 0 &&
              ` (${entry.changes.map(({ field }) => label(field).toLowerCase()).join(", ")})`}
            .
          </p>
          <button type="button" class="button button-small" onClick={onReview}>
            Review
          </button>
        </>
      )}
    </div>
  );
}

const latestOf = (entry: Entry): Newer => ({
  version: entry.version,
  who: who(entry),
  at: entry.at,
  reason: entry.reason,
  config: (entry.config ?? {}) as unknown as Fields,
});

const newerOf = (stale: Stale): Newer => ({
  version: stale.current_version,
  who: who({ actor: stale.changed_by }),
  at: stale.changed_at,
  reason: stale.change_reason,
  config: stale.current as Fields,
});

/** What the server says against each field, by the pointer of each. */
function byField(error: Refused): Record<string, string> {
  if (error.kind === "model-exists") return { model_id: "A model of this id exists already" };
  const told = (error.problem.errors ?? []).map(
    ({ pointer, detail }) => [pointer.split("/")[1] ?? "", detail] as const,
  );
  return Object.fromEntries(told.filter(([field]) => field !== ""));
}
