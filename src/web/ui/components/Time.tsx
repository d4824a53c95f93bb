import { store, useStore } from "../state/store";
import { absolute, relative } from "../text/times";

const now = store(Date.now());
setInterval(() => now.set(Date.now()), 20_000);

/** When, as people say it; the exact instant on hover, and for programs. */
export function Time({ at }: { readonly at: string }) {
  const today = useStore(now);
  return (
    <time dateTime={at} title={absolute(at)}>
      {relative(at, Math.max(today, Date.now() - 20_000))}
    </time>
  );
}
