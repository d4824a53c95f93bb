import { useState } from "preact/hooks";
import { Refused } from "../../api/client";
import * as api from "../../api/models";
import { Changes } from "../../components/Changes";
import { Dialog } from "../../components/Dialog";
import { Failure, Loading, Problem } from "../../components/States";
import { useRead } from "../../components/useRead";
import { readModels } from "../../state/models";
import { notify } from "../../state/notices";
import { label, valueText } from "../../text/fields";
import { tell } from "../models/Actions";

export interface Way {
  readonly kind: api.WayBack;
  readonly version: number;
}

interface Props {
  readonly id: string;
  readonly current: number;
  readonly way: Way;
  readonly onClose: () => void;
}

/** Back to a version, or without one change: what exactly will become of the configuration, before it does. */
export function WayBackDialog({ id, current, way, onClose }: Props) {
  const { kind, version } = way;
  const [read, again] = useRead(() => api.preview(kind, id, version), `${kind} ${id} ${version} ${current}`);
  const [reason, setReason] = useState("");
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<Error | null>(null);
  const preview = read.is === "ready" ? read.value : null;
  const count = preview?.changes.length ?? 0;
  const possible =
    preview !== null && count > 0 && preview.problems.length === 0 && preview.conflicts.length === 0;
  const verb = kind === "rollback" ? "Roll back" : "Undo";
  const run = async () => {
    if (!possible || busy) return;
    setBusy(true);
    setError(null);
    try {
      const receipt = await api.goBack(kind, id, version, {
        version: preview?.current ?? current,
        reason,
      });
      await readModels();
      const undo = () =>
        void tell(
          () => api.goBack("rollback", id, current, { version: receipt.version }),
          `${id} is as it was before`,
        );
      const done =
        kind === "rollback" ? `${id} is back at v${version}` : `What v${version} changed is undone`;
      notify(`${done}; this is v${receipt.version}`, "good", { label: "Undo", run: undo });
      onClose();
    } catch (refused) {
      setError(refused as Error);
      if (refused instanceof Refused && refused.status === 412) again();
      setBusy(false);
    }
  };
  return (
    <Dialog
      title={
        kind === "rollback" ? `Bring ${id} back to v${version}` : `Undo what v${version} changed in ${id}`
      }
      onClose={onClose}
      wide
    >
      <form
        onSubmit={event => {
          event.preventDefault();
          void run();
        }}
      >
        {read.is === "loading" && <Loading what="what would change" />}
        {read.is === "failed" && <Failure error={read.error} />}
        {preview && count === 0 && preview.conflicts.length === 0 && (
          <p>Nothing would change: the configuration is the same already.</p>
        )}
        {preview && count > 0 && (
          <>
            <p class="quiet">
              From today’s v{preview.current}. The history goes on: this becomes v{preview.current + 1}, and
              can be undone.
            </p>
            <Changes changes={preview.changes} caption="What will change" />
          </>
        )}
        {preview && preview.conflicts.length > 0 && (
          <div class="problem" role="alert">
            <strong>It was changed again since:</strong>
            <ul>
              {preview.conflicts.map(({ field, base, theirs, mine }) => (
                <li key={field}>
                  {label(field)}: v{version} left <code>{valueText(field, base)}</code>, now it is{" "}
                  <code>{valueText(field, theirs)}</code>; undone it would be{" "}
                  <code>{valueText(field, mine)}</code>
                </li>
              ))}
            </ul>
            Undo the later change first, or edit the model.
          </div>
        )}
        {preview && preview.stays.length > 0 && (
          <section class="stays">
            <h3>Will not come back</h3>
            <ul>
              {preview.stays.map(({ field, old, new: target }) => (
                <li key={field}>
                  {label(field)} stays <code>{valueText(field, old)}</code>, v{version} had{" "}
                  <code>{valueText(field, target)}</code>
                </li>
              ))}
            </ul>
          </section>
        )}
        {preview && preview.problems.length > 0 && (
          <div class="problem" role="alert">
            <strong>Today’s rules do not allow it:</strong>
            <ul>
              {preview.problems.map(({ pointer, detail }) => (
                <li key={pointer + detail}>
                  {label(pointer.split("/")[1] ?? "")}: {detail}
                </li>
              ))}
            </ul>
            Edit the model, and take over from v{version} what still holds.
          </div>
        )}
        <div class="field">
          <label for="way-reason">Why? (optional)</label>
          <input
            id="way-reason"
            data-first
            maxLength={1000}
            value={reason}
            onInput={event => setReason(event.currentTarget.value)}
          />
        </div>
        <Problem error={error} />
        <footer class="dialog-foot">
          <button type="button" class="button" onClick={onClose}>
            Cancel
          </button>
          <button type="submit" class="button button-primary" disabled={!possible || busy}>
            {verb}, {count === 1 ? "1 field" : `${count} fields`}
          </button>
        </footer>
      </form>
    </Dialog>
  );
}
