/** The address is the state: what is shown follows from it, so that it survives a reload and can be shared. */
import { store, useStore } from "./store";

export interface Place {
  readonly path: string;
  readonly query: URLSearchParams;
  /** What stands after `#`, without it. */
  readonly fragment: string;
}

type Guard = (go: () => void) => boolean;

const place = store<Place>(here());
let guard: Guard | null = null;
let shown = location.href;

function here(): Place {
  const { pathname, search, hash } = location;
  return { path: pathname, query: new URLSearchParams(search), fragment: hash.slice(1) };
}

export const usePlace = (): Place => useStore(place);
export const currentPlace = (): Place => place.get();

/** Go somewhere; an unsaved form may ask first. */
export function go(address: string, { replace = false }: { replace?: boolean } = {}): void {
  const move = () => {
    history[replace ? "replaceState" : "pushState"](null, "", address);
    arrive();
  };
  if (!guard || guard(move)) move();
}

/** Change the query alone, without a step in the history; empty values leave it. */
export function setQuery(changes: Readonly<Record<string, string | null>>): void {
  const query = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(changes)) {
    if (value) query.set(name, value);
    else query.delete(name);
  }
  const text = query.toString();
  history.replaceState(null, "", location.pathname + (text && `?${text}`));
  shown = location.href;
  place.set(here());
}

/** Ask before the place is left: the guard answers whether to go at once, and may go later. */
export function guardLeaving(by: Guard): () => void {
  guard = by;
  return () => {
    if (guard === by) guard = null;
  };
}

export function letGo(): void {
  guard = null;
}

function arrive(): void {
  shown = location.href;
  place.set(here());
}

/** Follow links and the browser's own buttons. */
export function startRouter(): void {
  addEventListener("popstate", () => {
    const wanted = location.href;
    if (!guard) return arrive();
    const asks = guard;
    history.pushState(null, "", shown);
    const move = () => {
      history.pushState(null, "", wanted);
      arrive();
    };
    if (asks(move)) move();
  });
  addEventListener("click", event => {
    const link = event.target instanceof Element ? event.target.closest("a") : null;
    const plain = !(event.metaKey || event.ctrlKey || event.shiftKey || event.altKey || event.button !== 0);
    if (!link || !plain || event.defaultPrevented || link.target || link.hasAttribute("download")) return;
    if (link.origin !== location.origin || !isView(link.pathname)) return;
    event.preventDefault();
    go(link.pathname + link.search + link.hash);
  });
}

const isView = (path: string) => !/^\/(api|v1|schema|assets|livez|readyz|metrics)(\/|$)/.test(path);
