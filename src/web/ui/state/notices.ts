/** Short messages that come and go, and the one polite voice that reads them out. */
import { store } from "./store";

export interface Notice {
  readonly id: number;
  readonly text: string;
  readonly tone: "good" | "bad" | "plain";
  readonly action?: { readonly label: string; readonly run: () => void } | undefined;
}

const LASTS = 10_000;
const MOST = 4;

export const notices = store<readonly Notice[]>([]);
export const spoken = store("");
let count = 0;

export function notify(text: string, tone: Notice["tone"] = "good", action?: Notice["action"]): void {
  const notice = { id: ++count, text, tone, action };
  notices.set([...notices.get().slice(1 - MOST), notice]);
  if (tone !== "bad") linger(notice.id);
}

export function dismiss(id: number): void {
  notices.set(notices.get().filter(notice => notice.id !== id));
}

/** Say something to those who listen, without showing it. */
export function say(text: string): void {
  spoken.set(text);
}

let held = false;

/** Keep messages while somebody points at them. */
export function hold(on: boolean): void {
  held = on;
}

function linger(id: number): void {
  setTimeout(() => (held ? linger(id) : dismiss(id)), LASTS);
}
