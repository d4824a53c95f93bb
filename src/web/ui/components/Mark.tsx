/** The mark: three ruled lines of a ledger, the last one sealed. */
export function Mark() {
  return (
    <svg class="mark" viewBox="0 0 32 32" aria-hidden="true" focusable="false">
      <rect width="32" height="32" rx="7" />
      <path d="M9 8.5h14M9 14h14M9 19.5h9" />
      <circle cx="22.5" cy="21.5" r="2.6" />
    </svg>
  );
}
