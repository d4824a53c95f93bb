import { useState } from "preact/hooks";
import * as api from "../../api/models";
import type { Model } from "../../api/types";
import { type Choice, Menu } from "../../components/Menu";
import { readModels } from "../../state/models";
import { notify } from "../../state/notices";
import { go } from "../../state/router";
import { may } from "../../state/session";
import { DeleteDialog } from "./DeleteDialog";

/** What else can be done with a model: the menu, and the questions that it may ask. */
export function Actions({ id, model }: { readonly id: string; readonly model: Model }) {
  const [deleting, setDeleting] = useState(false);
  const chat: Choice = { label: "Chat with it", run: () => go(`/chat?model=${encodeURIComponent(id)}`) };
  const changes: Choice[] = [
    { label: "Duplicate", run: () => go(`/models/~new?from=${encodeURIComponent(id)}`) },
    model.enabled
      ? { label: "Disable", run: () => void enable(id, model, false) }
      : { label: "Enable", run: () => void enable(id, model, true) },
    ...(model.is_default ? [] : [{ label: "Make it the default", run: () => void makeDefault(id) }]),
    // The default is not deleted as it is: another model takes over in the same step.
    {
      label: model.is_default ? "Hand over and delete" : "Delete",
      run: () => setDeleting(true),
      danger: true,
    },
  ];
  return (
    <>
      <Menu
        label={`More about ${id}`}
        choices={[...(model.enabled ? [chat] : []), ...(may("models:change") ? changes : [])]}
      />
      {deleting && <DeleteDialog id={id} model={model} onClose={() => setDeleting(false)} />}
    </>
  );
}

async function enable(id: string, model: Model, enabled: boolean): Promise<void> {
  await tell(
    () => api.patch(id, { enabled }, { version: model.version }),
    enabled ? `${id} is enabled` : `${id} is disabled`,
  );
}

async function makeDefault(id: string): Promise<void> {
  await tell(() => api.setDefault(id), `${id} is the default now`);
}

/** Do it, and say that it is done, or why not. */
export async function tell(work: () => Promise<unknown>, done: string): Promise<boolean> {
  try {
    await work();
    await readModels();
    notify(done);
    return true;
  } catch (error) {
    notify(`Not done: ${(error as Error).message}`, "bad");
    return false;
  }
}
