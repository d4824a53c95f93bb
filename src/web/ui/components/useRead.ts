import { useCallback, useEffect, useRef, useState } from "preact/hooks";

export type Reading<T> =
  | { readonly is: "loading" }
  | { readonly is: "failed"; readonly error: Error }
  | { readonly is: "ready"; readonly value: T };

/** What a read answers, read anew whenever `key` changes; an answer that comes too late is dropped. */
export function useRead<T>(read: () => Promise<T>, key: string): readonly [Reading<T>, () => void] {
  const [state, setState] = useState<{ key: string; reading: Reading<T> }>({
    key,
    reading: { is: "loading" },
  });
  const turn = useRef(0);
  const latest = useRef(read);
  latest.current = read;
  const again = useCallback(() => {
    const mine = ++turn.current;
    const settle = (reading: Reading<T>) => mine === turn.current && setState({ key, reading });
    latest.current().then(
      value => settle({ is: "ready", value }),
      (error: Error) => settle({ is: "failed", error }),
    );
  }, [key]);
  useEffect(() => {
    again();
    return () => {
      turn.current += 1;
    };
  }, [again]);
  return [state.key === key ? state.reading : { is: "loading" }, again];
}
