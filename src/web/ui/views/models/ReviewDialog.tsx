import { useState } from "preact/hooks";
import type { FieldChange, Fields } from "../../api/types";
import { Changes } from "../../components/Changes";
import { Dialog } from "../../components/Dialog";
import { Problem } from "../../components/States";
import { inOrder, label, valueText } from "../../text/fields";

interface Props {
  readonly title: string;
  /** The version that is changed; null for a model that is added. */
  readonly version: number | null;
  readonly changes: readonly FieldChange[];
  readonly config: Fields;
  readonly action: string;
  readonly onSave: (reason: string) => Promise<void>;
  readonly onClose: () => void;
}

/** The last look before a save: exactly what will be recorded, and why. */
export function ReviewDialog({ title, version, changes, config, action, onSave, onClose }: Props) {
  const [reason, setReason] = useState("");
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<Error | null>(null);
  const save = async () => {
    if (busy) return;
    setBusy(true);
    setError(null);
    await onSave(reason).catch((refused: Error) => setError(refused));
    setBusy(false);
  };
  return (
    <Dialog title={title} onClose={onClose} wide>
      <form
        onSubmit={event => {
          event.preventDefault();
          event.stopPropagation();
          void save();
        }}
        onKeyDown={event => {
          event.stopPropagation();
          if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) void save();
        }}
      >
        {version === null ? (
          <dl class="facts facts-review">
            {inOrder(Object.keys(config)).map(field => (
              <div key={field}>
                <dt>{label(field)}</dt>
                <dd class="figure">{valueText(field, config[field])}</dd>
              </div>
            ))}
          </dl>
        ) : (
          <>
            <Changes changes={changes} caption="What will change" />
            <p class="quiet">
              Calls under way keep v{version}; new ones use v{version + 1}, within a moment, on every worker.
            </p>
          </>
        )}
        <div class="field">
          <label for="reason">Why? (optional)</label>
          <input
            id="reason"
            data-first
            maxLength={1000}
            value={reason}
            placeholder="o1 runs out of time on long prompts"
            onInput={event => setReason(event.currentTarget.value)}
          />
        </div>
        <Problem error={error} />
        <footer class="dialog-foot">
          <button type="button" class="button" onClick={onClose}>
            Back to the form
          </button>
          <button type="submit" class="button button-primary" disabled={busy}>
            {action}
          </button>
        </footer>
      </form>
    </Dialog>
  );
}
