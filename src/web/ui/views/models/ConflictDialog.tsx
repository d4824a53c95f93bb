import { useState } from "preact/hooks";
import type { Fields, Value } from "../../api/types";
import { Dialog } from "../../components/Dialog";
import { Time } from "../../components/Time";
import { label, valueText } from "../../text/fields";
import { difference, merge } from "../../text/merge";
import { visible } from "../../text/visible";

/** The version that somebody else saved meanwhile. */
export interface Newer {
  readonly version: number;
  readonly who: string;
  readonly at: string;
  readonly reason: string | null;
  readonly config: Fields;
}

interface Props {
  readonly newer: Newer;
  readonly base: Fields;
  readonly mine: Fields;
  readonly onMerge: (merged: Fields) => void;
  readonly onClose: () => void;
}

/** Base, theirs and mine for each field that both changed; everything else is merged by itself. */
export function ConflictDialog({ newer, base, mine, onMerge, onClose }: Props) {
  const { merged, conflicts } = merge(base, newer.config, mine);
  const [chosen, setChosen] = useState<Readonly<Record<string, "theirs" | "mine">>>({});
  const theirs = difference(base, newer.config).length;
  const open = conflicts.filter(({ field }) => !chosen[field]).length;
  const result = () => {
    const fields: Record<string, Value> = { ...merged };
    for (const { field, mine: value } of conflicts) {
      if (chosen[field] !== "mine") continue;
      if (value === undefined) delete fields[field];
      else fields[field] = value;
    }
    return fields;
  };
  return (
    <Dialog title={`${newer.who} saved v${newer.version} while you were editing`} onClose={onClose} wide>
      <p>
        <Time at={newer.at} />
        {newer.reason && `, because “${visible(newer.reason)}”`}.{" "}
        {theirs === 1 ? "One field" : `${theirs} fields`} of theirs differ from what you began with
        {conflicts.length === 0 ? "; none of them is one that you changed." : "."}
      </p>
      {conflicts.map(({ field, base: was, theirs: other, mine: own }) => (
        <fieldset key={field} class="conflict">
          <legend>
            {label(field)} <span class="quiet">was {valueText(field, was)}</span>
          </legend>
          {(["theirs", "mine"] as const).map((side, place) => (
            <label key={side} class="conflict-side">
              <input
                type="radio"
                name={`conflict-${field}`}
                checked={chosen[field] === side}
                data-first={place === 0 ? "" : undefined}
                onChange={() => setChosen({ ...chosen, [field]: side })}
              />
              <span>{side === "theirs" ? `Theirs, ${newer.who}` : "Mine"}</span>
              <code>{valueText(field, side === "theirs" ? other : own)}</code>
            </label>
          ))}
        </fieldset>
      ))}
      <footer class="dialog-foot">
        <button type="button" class="button" onClick={onClose}>
          Back to the form
        </button>
        <button
          type="button"
          class="button button-primary"
          disabled={open > 0}
          onClick={() => onMerge(result())}
        >
          {open > 0 ? `${open} to choose` : "Review the result"}
        </button>
      </footer>
    </Dialog>
  );
}
