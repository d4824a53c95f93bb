import type { FieldChange } from "../api/types";
import { label, valueText } from "../text/fields";

/** A difference, field by field: each line says by sign, word and colour what became of it. */
export function Changes({
  changes,
  caption,
}: {
  readonly changes: readonly FieldChange[];
  readonly caption: string;
}) {
  return (
    <table class="diff">
      <caption class="hidden">{caption}</caption>
      <thead class="hidden">
        <tr>
          <th scope="col">Field</th>
          <th scope="col">Before</th>
          <th scope="col">After</th>
        </tr>
      </thead>
      <tbody>
        {changes.map(change => (
          <Change key={change.field} change={change} />
        ))}
      </tbody>
    </table>
  );
}

function Change({ change: { field, op, old, new: next } }: { readonly change: FieldChange }) {
  return (
    <tr>
      <th scope="row">
        {label(field)} <span class={op === "changed" ? "hidden" : "diff-op"}>{op}</span>
      </th>
      <td class="diff-old">
        {op === "added" ? <span class="quiet">not set</span> : <del>{valueText(field, old)}</del>}
      </td>
      <td class="diff-new">
        {op === "removed" ? <span class="quiet">not set</span> : <ins>{valueText(field, next)}</ins>}
      </td>
    </tr>
  );
}
