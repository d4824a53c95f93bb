import { usePlace } from "../../state/router";

const DAY = 86_400_000;
const day = (ago: number) => new Date(Date.now() - ago * DAY).toLocaleDateString("sv");

/** The sidebar beside the audit log: questions that are asked often. */
export function AuditPanel() {
  const { query } = usePlace();
  const questions: readonly (readonly [told: string, query: string])[] = [
    ["Everything", ""],
    ["Today", `since=${day(0)}`],
    ["The last seven days", `since=${day(7)}`],
    ["Rolled back", "type=model.rolled_back"],
    ["Deleted", "type=model.deleted"],
    ["Default changed", "type=default.changed"],
    ["Made in a browser", "source=ui"],
    ["Made by programs", "source=api"],
  ];
  return (
    <ul class="list">
      {questions.map(([told, wanted]) => (
        <li key={told}>
          <a
            href={wanted ? `/audit?${wanted}` : "/audit"}
            aria-current={query.toString() === wanted ? "page" : undefined}
          >
            <span class="list-name">{told}</span>
          </a>
        </li>
      ))}
    </ul>
  );
}
