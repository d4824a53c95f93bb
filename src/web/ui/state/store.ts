/** A value that views watch. */
import { useLayoutEffect, useState } from "preact/hooks";

export interface Store<T> {
  get(): T;
  set(next: T): void;
  watch(tell: () => void): () => void;
}

export function store<T>(initial: T): Store<T> {
  let value = initial;
  const watchers = new Set<() => void>();
  return {
    get: () => value,
    set(next) {
      if (Object.is(next, value)) return;
      value = next;
      for (const tell of [...watchers]) tell();
    },
    watch(tell) {
      watchers.add(tell);
      return () => watchers.delete(tell);
    },
  };
}

/** The store's value, and a new look whenever it changes. */
export function useStore<T>(from: Store<T>): T {
  const [, look] = useState({});
  useLayoutEffect(() => {
    const seen = from.get();
    const stop = from.watch(() => look({}));
    if (!Object.is(seen, from.get())) look({});
    return stop;
  }, [from]);
  return from.get();
}
