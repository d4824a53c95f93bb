/** How far the workers have followed the ledger. */
import { ask } from "../api/client";
import type { Workers } from "../api/types";
import { newest } from "./live";
import { store } from "./store";

export const workers = store<Workers | null>(null);

/** A change takes a moment to arrive everywhere, and a worker to be missed. */
const SOON = 400;
const EVERY = 30_000;

/** Look after every change, and now and then; a page that nobody sees does not look. */
export function watchWorkers(): () => void {
  let soon = 0;
  const look = () => {
    if (document.visibilityState === "visible") void read();
  };
  const stop = newest.watch(() => {
    clearTimeout(soon);
    soon = setTimeout(look, SOON);
  });
  const timer = setInterval(look, EVERY);
  look();
  return () => {
    stop();
    clearTimeout(soon);
    clearInterval(timer);
  };
}

async function read(): Promise<void> {
  try {
    workers.set(await ask<Workers>("/api/config/workers"));
  } catch {
    workers.set(null);
  }
}
