import type { Model } from "../../api/types";
import { host } from "../../text/fields";

export type Order = "id" | "changed" | "tokens" | "host";

export const ORDERS: Readonly<Record<Order, string>> = {
  id: "Name",
  changed: "Last change",
  tokens: "Max tokens",
  host: "Host",
};

type Pair = readonly [id: string, model: Model];

const COLLATOR = new Intl.Collator("en", { numeric: true });
const COMPARE: Readonly<Record<Order, (a: Pair, b: Pair) => number>> = {
  id: (a, b) => COLLATOR.compare(a[0], b[0]),
  changed: (a, b) => b[1].position - a[1].position,
  tokens: (a, b) => b[1].max_tokens - a[1].max_tokens,
  host: (a, b) => COLLATOR.compare(host(a[1]), host(b[1])),
};

/** The models that hold every word of a text, in an order; equals by id. */
export function arranged(byId: ReadonlyMap<string, Model>, text: string, order: Order): Pair[] {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const holds = ([id, model]: Pair) => {
    const told =
      `${id} ${model.name} ${model.description} ${host(model)} ${model.deployment ?? ""}`.toLowerCase();
    return words.every(word => told.includes(word));
  };
  return [...byId].filter(holds).sort((a, b) => COMPARE[order](a, b) || COMPARE.id(a, b));
}
