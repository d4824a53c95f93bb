/** Fuzzy finding: the letters of a text in their order, the better the closer together and to a beginning. */

export function rank<T>(items: readonly T[], text: string, told: (item: T) => string): T[] {
  const wanted = text.toLowerCase().replaceAll(" ", "");
  if (!wanted) return [...items];
  const scored: (readonly [item: T, score: number])[] = [];
  for (const item of items) {
    const points = score(told(item).toLowerCase(), wanted);
    if (points > 0) scored.push([item, points]);
  }
  return scored.sort((a, b) => b[1] - a[1]).map(([item]) => item);
}

/** 0 when a letter is missing. */
function score(told: string, wanted: string): number {
  let points = 1;
  let at = -1;
  for (const letter of wanted) {
    const next = told.indexOf(letter, at + 1);
    if (next < 0) return 0;
    const begins = next === 0 || /[\s._:-]/.test(told[next - 1] ?? "");
    points += (next === at + 1 ? 6 : 0) + (begins ? 4 : 0) - Math.min(3, (next - at) / 10);
    at = next;
  }
  return Math.max(points - told.length / 100, 0.01);
}
