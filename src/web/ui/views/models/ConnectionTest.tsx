import { useRef, useState } from "preact/hooks";
import { ask } from "../../api/client";
import type { ConnectionReport, Fields } from "../../api/types";
import { Icon } from "../../components/Icon";
import { Problem } from "../../components/States";
import { duration } from "../../text/times";
import { visible } from "../../text/visible";

interface Props {
  readonly id: string;
  readonly config: Fields;
  readonly blocked: boolean;
}

/** Tries the values as they stand in the form, step by step; records nothing. */
export function ConnectionTest({ id, config, blocked }: Props) {
  const running = useRef<AbortController | null>(null);
  const [busy, setBusy] = useState(false);
  const [result, setResult] = useState<ConnectionReport | null>(null);
  const [error, setError] = useState<Error | null>(null);
  const test = async () => {
    const control = new AbortController();
    running.current = control;
    setBusy(true);
    setError(null);
    setResult(null);
    try {
      const path = `/api/config/models/${encodeURIComponent(id)}/test`;
      setResult(await ask<ConnectionReport>(path, { method: "POST", body: config, signal: control.signal }));
    } catch (failed) {
      if (!control.signal.aborted) setError(failed as Error);
    }
    setBusy(false);
  };
  return (
    <section class="test" aria-label="Test connection">
      <div class="row">
        {busy ? (
          <button type="button" class="button" onClick={() => running.current?.abort()}>
            Cancel the test
          </button>
        ) : (
          <button type="button" class="button" disabled={blocked} onClick={() => void test()}>
            Test connection
          </button>
        )}
        <span class="quiet" role="status">
          {busy
            ? "Calling the provider with the values above"
            : result
              ? result.ok
                ? "It answers"
                : "It does not work like this yet; it can be saved all the same"
              : "Tries the values above; nothing is saved"}
        </span>
      </div>
      <Problem error={error} />
      {result && (
        <ol class="steps">
          {result.steps.map(({ name, ok, detail, seconds }) => (
            <li key={name} class={ok ? "step-ok" : "step-bad"}>
              <Icon name={ok ? "check" : "warn"} />
              <strong>{name}</strong> <span class="quiet">{visible(detail)}</span>
              <span class="push" />
              <span class="quiet figure">{duration(seconds)}</span>
            </li>
          ))}
        </ol>
      )}
    </section>
  );
}
