/** Three-way merge of configurations: what I changed onto what somebody else saved meanwhile. */
import type { FieldChange, Fields, Value } from "../api/types";
import { inOrder } from "./fields";

export interface Conflict {
  readonly field: string;
  readonly base: Value | undefined;
  readonly theirs: Value | undefined;
  readonly mine: Value | undefined;
}

export interface Merge {
  /** All that can be decided without a person; of fields in conflict, theirs. */
  readonly merged: Fields;
  readonly conflicts: readonly Conflict[];
}

export function merge(base: Fields, theirs: Fields, mine: Fields): Merge {
  const merged: Record<string, Value> = {};
  const conflicts: Conflict[] = [];
  for (const field of inOrder([...Object.keys(base), ...Object.keys(theirs), ...Object.keys(mine)])) {
    const three = { field, base: base[field], theirs: theirs[field], mine: mine[field] };
    const iChanged = !same(three.base, three.mine);
    const theyChanged = !same(three.base, three.theirs);
    if (iChanged && theyChanged && !same(three.mine, three.theirs)) conflicts.push(three);
    const value = iChanged && !theyChanged ? three.mine : three.theirs;
    if (value !== undefined) merged[field] = value;
  }
  return { merged, conflicts };
}

/** What leads from one configuration to another, in the order of the fields. */
export function difference(old: Fields, next: Fields): FieldChange[] {
  const changes: FieldChange[] = [];
  for (const field of inOrder([...Object.keys(old), ...Object.keys(next)])) {
    const [before, after] = [old[field], next[field]];
    if (same(before, after)) continue;
    const op = before === undefined ? "added" : after === undefined ? "removed" : "changed";
    const values = {
      ...(before === undefined ? {} : { old: before }),
      ...(after === undefined ? {} : { new: after }),
    };
    changes.push({ field, op, ...values } as FieldChange);
  }
  return changes;
}

export function same(one: Value | undefined, other: Value | undefined): boolean {
  if (!Array.isArray(one) || !Array.isArray(other)) return one === other;
  return one.length === other.length && one.every((item, place) => item === other[place]);
}
