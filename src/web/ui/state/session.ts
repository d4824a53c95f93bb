/** Who is signed in. */
import { ask, onSignedOut, Refused } from "../api/client";
import type { Session } from "../api/types";
import { store } from "./store";

export type SessionState =
  | { readonly is: "unknown" }
  | { readonly is: "out" }
  | { readonly is: "in"; readonly session: Session }
  | { readonly is: "unreachable" };

export const session = store<SessionState>({ is: "unknown" });

onSignedOut(end);

/** Whether this browser has signed in: without it there is nothing to ask the server for. */
const KNOWN = "model-ledger.signed-in";

export async function readSession(): Promise<void> {
  if (!localStorage.getItem(KNOWN)) return end();
  try {
    session.set({ is: "in", session: await ask<Session>("/api/session") });
  } catch (error) {
    if (error instanceof Refused && error.status === 401) end();
    else session.set({ is: "unreachable" });
  }
}

function end(): void {
  localStorage.removeItem(KNOWN);
  session.set({ is: "out" });
}

/** Trade a token or a one-time code for a session. Raises what the server says against it. */
export async function signIn(proof: { readonly token: string } | { readonly code: string }): Promise<void> {
  await ask("/api/session", { method: "POST", body: proof });
  localStorage.setItem(KNOWN, "yes");
  await readSession();
}

export async function signOut(): Promise<void> {
  await ask("/api/session", { method: "DELETE" }).catch(() => {});
  end();
}

export function may(permission: string): boolean {
  const now = session.get();
  return now.is === "in" && now.session.permissions.some(held => held === permission);
}
