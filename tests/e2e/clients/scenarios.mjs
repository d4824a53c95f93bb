// How a client is asked and answers: a line of JSON in, one for each scenario out; as scenarios.py.
import { createInterface } from "node:readline";

export const HELLO = "hello";
export const TEXTS = ["one", "two"];
export const WEATHER = {
  name: "weather",
  description: "The weather of a city.",
  parameters: {
    type: "object",
    properties: { city: { type: "string" } },
    required: ["city"],
    additionalProperties: false,
  },
};

/**
 * Run all scenarios at once, tell of each as it ends, and stay until standard input does: until then the
 * upstream is looked at, and an end of this process would close every connection.
 *
 * @param scenarios makes functions by name, each of which writes what it found into its argument; it gets what
 *   was given, and a promise of the second line, which comes when the calls that are to be left have begun
 * @param describe turns an error into `{class, status, code, retry_after}`
 */
export async function play(scenarios, describe) {
  const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  const given = JSON.parse((await lines.next()).value);
  const leaving = lines.next();
  const run = async ([scenario, act]) => {
    const found = {};
    try {
      await act(found);
    } catch (error) {
      found.error = describe(error);
    }
    process.stdout.write(JSON.stringify({ scenario, ...found }) + "\n");
  };
  await Promise.all(Object.entries(scenarios(given, leaving)).map(run));
  process.stdout.write("{}\n");
  await lines.next();
}
