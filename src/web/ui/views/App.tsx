import { useEffect } from "preact/hooks";
import { Unreachable } from "../api/client";
import { Notices } from "../components/Notices";
import { Failure, Loading } from "../components/States";
import { currentPlace } from "../state/router";
import { readSession, session } from "../state/session";
import { useStore } from "../state/store";
import { Frame } from "./Frame";
import { SignIn } from "./SignIn";

/** The whole page: the application, or the way into it. */
export function App() {
  const now = useStore(session);
  useEffect(() => {
    // A one-time code makes a session of its own, whatever session there is.
    if (currentPlace().path === "/sign-in" && currentPlace().fragment) session.set({ is: "out" });
    else void readSession();
  }, []);
  return (
    <>
      {now.is === "unknown" && <Loading what="the session" />}
      {now.is === "unreachable" && (
        <main>
          <Failure
            error={new Unreachable("Model Ledger does not answer.")}
            onRetry={() => void readSession()}
          />
        </main>
      )}
      {now.is === "out" && <SignIn />}
      {now.is === "in" && <Frame />}
      <Notices />
    </>
  );
}
