/** Times for people: relative for reading, absolute for proof. */

const STEPS: readonly [limit: number, seconds: number, unit: Intl.RelativeTimeFormatUnit][] = [
  [45, 1, "second"],
  [45 * 60, 60, "minute"],
  [22 * 3600, 3600, "hour"],
  [26 * 86_400, 86_400, "day"],
  [320 * 86_400, 30.4 * 86_400, "month"],
  [Number.POSITIVE_INFINITY, 365 * 86_400, "year"],
];
const RELATIVE = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "long" });
const ABSOLUTE = new Intl.DateTimeFormat("en-GB", {
  dateStyle: "medium",
  timeStyle: "medium",
  timeZone: "UTC",
});

export function relative(at: string, now: number): string {
  const seconds = Math.round((Date.parse(at) - now) / 1000);
  const ago = Math.abs(seconds);
  if (ago < 10) return "just now";
  const [, size, unit] = STEPS.find(([limit]) => ago < limit) ?? STEPS[5] ?? [0, 1, "second"];
  return RELATIVE.format(Math.round(seconds / size), unit);
}

export function absolute(at: string): string {
  return `${ABSOLUTE.format(new Date(at))} UTC`;
}

/** A duration as people say it: `0.4 s`, `94 s`, `5 min`. */
export function duration(seconds: number): string {
  if (seconds >= 600 && seconds % 60 === 0) return `${number(seconds / 60)} min`;
  return `${number(seconds < 10 ? Math.round(seconds * 10) / 10 : Math.round(seconds))} s`;
}

const NUMBER = new Intl.NumberFormat("en", { maximumFractionDigits: 6 });

export const number = (value: number): string => NUMBER.format(value);
