import type { ComponentChildren } from "preact";
import type { Entry } from "../../api/types";
import { Changes } from "../../components/Changes";
import { Time } from "../../components/Time";
import { deed, SOURCES, who } from "../../text/sentences";
import { visible } from "../../text/visible";

interface Props {
  readonly entry: Entry;
  /** Whether the model is named: in lists that hold several. */
  readonly named: boolean;
  readonly children?: ComponentChildren;
  /** What leads the line; the version by default. */
  readonly lead?: ComponentChildren;
  readonly chosen?: boolean;
  /** What stands beside the time. */
  readonly beside?: ComponentChildren;
}

export const isModelEvent = (entry: Entry) => entry.type.startsWith("model.") && entry.model_id !== null;

/** One event as a sentence: who, what, when, why, from where; the fields below, folded when there are many. */
export function EntryItem({ entry, named, children, lead, beside, chosen = false }: Props) {
  const link = `/models/${encodeURIComponent(entry.model_id ?? "")}/versions/${entry.version}`;
  const several = entry.changes.length > 0 && entry.type !== "model.deleted";
  return (
    <li class={chosen ? "entry entry-chosen" : "entry"} id={`event-${entry.position}`}>
      <div class="entry-mark figure">
        {lead ?? (isModelEvent(entry) ? <a href={link}>v{entry.version}</a> : <span class="quiet">–</span>)}
      </div>
      <div class="entry-body">
        <p class="entry-line">
          <strong>{who(entry)}</strong> <span>{visible(deed(entry, named))}</span>
        </p>
        {entry.reason && <p class="entry-reason">“{visible(entry.reason)}”</p>}
        {several && entry.type !== "model.created" && (
          <details class="entry-changes" open={entry.changes.length <= 3 && entry.changes.length > 1}>
            <summary>{entry.changes.length === 1 ? "One field" : `${entry.changes.length} fields`}</summary>
            <Changes changes={entry.changes} caption={`What v${entry.version} changed`} />
          </details>
        )}
        {children && <div class="entry-actions">{children}</div>}
      </div>
      <p class="entry-when quiet">
        <Time at={entry.at} />, {SOURCES[entry.source] ?? entry.source}
        {beside}
      </p>
    </li>
  );
}
