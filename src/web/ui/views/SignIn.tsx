import { useEffect, useRef, useState } from "preact/hooks";
import { Mark } from "../components/Mark";
import { Problem } from "../components/States";
import { currentPlace, go } from "../state/router";
import { signIn } from "../state/session";

/** Signed out: a token, or the code of a one-time link, is the way in. */
export function SignIn() {
  const field = useRef<HTMLInputElement>(null);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<Error | null>(null);
  const enter = async (proof: { token: string } | { code: string }) => {
    setBusy(true);
    setError(null);
    try {
      await signIn(proof);
      const { path } = currentPlace();
      if (path === "/sign-in" || path === "/") go("/chat", { replace: true });
    } catch (refused) {
      setError(refused as Error);
      setBusy(false);
      field.current?.focus();
    }
  };
  useEffect(() => {
    document.title = "Sign in · Model Ledger";
    const { path, fragment } = currentPlace();
    if (path === "/sign-in" && fragment) {
      history.replaceState(null, "", "/sign-in");
      void enter({ code: fragment });
    } else field.current?.focus();
  }, []);
  return (
    <main class="sign-in">
      <form
        onSubmit={event => {
          event.preventDefault();
          const token = field.current?.value.trim() ?? "";
          if (token) void enter({ token });
          else field.current?.focus();
        }}
      >
        <Mark />
        <h1>Model Ledger</h1>
        <p class="quiet">The book of record for this installation’s language models.</p>
        <input type="text" name="username" autoComplete="username" value="model-ledger" hidden readOnly />
        <div class="field">
          <label for="token">Access token</label>
          <input
            ref={field}
            id="token"
            name="token"
            type="password"
            autoComplete="current-password"
            spellcheck={false}
            aria-invalid={error !== null}
            aria-describedby="token-hint"
          />
          <p id="token-hint" class="hint">
            The first start printed it once, beside a link that signs in by itself.
          </p>
        </div>
        <Problem error={error} />
        <button type="submit" class="button button-primary" disabled={busy}>
          {busy ? "Signing in" : "Sign in"}
        </button>
      </form>
    </main>
  );
}
