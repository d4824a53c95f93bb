import { useEffect, useState } from "preact/hooks";
import type { Entry, Page } from "../../api/types";
import { useRead } from "../../components/useRead";

type ReadPage = (cursor: string | null) => Promise<Page>;

/** Entries page by page, newest first; everything is read anew whenever `key` changes. */
export function usePages(read: ReadPage, key: string) {
  const [first, again] = useRead(() => read(null), key);
  const [more, setMore] = useState<{ entries: readonly Entry[]; cursor: string | null } | null>(null);
  const [error, setError] = useState<Error | null>(null);
  useEffect(() => setMore(null), [first]);
  const page = first.is === "ready" ? first.value : null;
  const cursor = more ? more.cursor : (page?.next_cursor ?? null);
  const older = async () => {
    setError(null);
    try {
      const next = await read(cursor);
      setMore({ entries: [...(more?.entries ?? []), ...next.data], cursor: next.next_cursor });
    } catch (failed) {
      setError(failed as Error);
    }
  };
  return {
    first,
    again,
    entries: [...(page?.data ?? []), ...(more?.entries ?? [])],
    older: cursor ? older : null,
    error,
  };
}
