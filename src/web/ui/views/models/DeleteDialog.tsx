import { useId, useState } from "preact/hooks";
import * as api from "../../api/models";
import type { Model } from "../../api/types";
import { Dialog } from "../../components/Dialog";
import { Problem } from "../../components/States";
import { chats } from "../../state/chats";
import { models, readModels } from "../../state/models";
import { notify } from "../../state/notices";
import { currentPlace, go } from "../../state/router";
import { useStore } from "../../state/store";
import { tell } from "./Actions";

interface Props {
  readonly id: string;
  readonly model: Model;
  readonly onClose: () => void;
}

/** Asks before a model goes: what will happen, and for the default who takes over. */
export function DeleteDialog({ id, model, onClose }: Props) {
  const told = useId();
  const listing = useStore(models);
  const others = listing.is === "ready" ? [...listing.byId.keys()].filter(other => other !== id) : [];
  const [successor, setSuccessor] = useState("");
  const [reason, setReason] = useState("");
  const [error, setError] = useState<Error | null>(null);
  const here = [...(useStore(chats)?.values() ?? [])].filter(chat => chat.model === id).length;
  const remove = async () => {
    try {
      await api.remove(id, successor || null, { version: model.version, reason });
      if (currentPlace().path.startsWith(`/models/${encodeURIComponent(id)}`)) go("/models");
      await readModels();
      const undo = () => void tell(() => api.restore(id, "taken back at once"), `${id} is back`);
      notify(`${id} is deleted`, "good", { label: "Undo", run: undo });
      onClose();
    } catch (refused) {
      setError(refused as Error);
    }
  };
  const blocked = model.is_default && successor === "";
  return (
    <Dialog
      title={model.is_default ? `Hand over from ${id}, and delete it?` : `Delete ${id}?`}
      onClose={onClose}
      describedBy={told}
    >
      <form
        onSubmit={event => {
          event.preventDefault();
          if (!blocked) void remove();
        }}
      >
        <ul id={told} class="consequences">
          <li>
            Calls that name <code>{id}</code> are refused with 404 from then on; those under way finish.
          </li>
          {here > 0 && (
            <li>
              {here === 1 ? "One conversation" : `${here} conversations`} in this browser can be read on, but
              not continued with it.
            </li>
          )}
          <li>Its history stays, and it can be brought back at any time under “Deleted models”.</li>
        </ul>
        {model.is_default && others.length > 0 && (
          <div class="field">
            <label for="successor">It is the default. Which model takes over?</label>
            <select
              id="successor"
              value={successor}
              onChange={event => setSuccessor(event.currentTarget.value)}
            >
              <option value="">Choose a model</option>
              {others.map(other => (
                <option key={other}>{other}</option>
              ))}
            </select>
          </div>
        )}
        {model.is_default && others.length === 0 && (
          <p class="problem">
            It is the default and the only model. Add another one first, or take the default away in its
            settings.
          </p>
        )}
        <div class="field">
          <label for="delete-reason">Why? (optional)</label>
          <input
            id="delete-reason"
            maxLength={1000}
            value={reason}
            onInput={event => setReason(event.currentTarget.value)}
          />
        </div>
        <Problem error={error} />
        <footer class="dialog-foot">
          <button type="button" class="button" data-first onClick={onClose}>
            Cancel
          </button>
          <button type="submit" class="button button-danger" disabled={blocked}>
            Delete {id}
          </button>
        </footer>
      </form>
    </Dialog>
  );
}
