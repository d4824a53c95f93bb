/** What a view shows when it has nothing else to show yet, any more, or at all. */
import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { Refused, Unreachable } from "../api/client";

/** Said only when it takes long enough to be noticed. */
export function Loading({ what }: { readonly what: string }) {
  const [late, setLate] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setLate(true), 200);
    return () => clearTimeout(timer);
  }, []);
  return (
    <div class="state" role="status">
      {late && <p class="quiet loading">Reading {what}</p>}
    </div>
  );
}

interface EmptyProps {
  readonly title: string;
  readonly children?: ComponentChildren;
}

export function Empty({ title, children }: EmptyProps) {
  return (
    <div class="state">
      <h2>{title}</h2>
      {children}
    </div>
  );
}

interface FailureProps {
  readonly error: Error;
  readonly onRetry?: () => void;
}

/** What happened, what can be done, and under which name the log has it. */
export function Failure({ error, onRetry }: FailureProps) {
  return (
    <div class="state" role="alert">
      <h2>{titleOf(error)}</h2>
      <p>{error.message}</p>
      {error instanceof Refused && error.problem.request_id && (
        <p class="quiet">
          Request <code>{error.problem.request_id}</code>
        </p>
      )}
      {onRetry && (
        <p>
          <button type="button" class="button" onClick={onRetry}>
            Try again
          </button>
        </p>
      )}
    </div>
  );
}

/** The same in a line, inside a form or a dialog. */
export function Problem({ error }: { readonly error: Error | null }) {
  return (
    <div role="alert">
      {error && (
        <p class="problem">
          <strong>{titleOf(error)}.</strong> {error.message}
        </p>
      )}
    </div>
  );
}

function titleOf(error: Error): string {
  if (error instanceof Refused) return error.problem.title;
  return error instanceof Unreachable ? "No connection" : "The page failed here";
}
