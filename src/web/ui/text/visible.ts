/** Text from elsewhere, fit to be read: what would be invisible or turn the line around is shown as an escape. */

// Controls but line feed and tab; zero width; bidirectional marks, embeddings and isolates; the byte order mark.
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g;

export function visible(text: string): string {
  return text.replace(HIDDEN, found => `\\u${found.charCodeAt(0).toString(16).padStart(4, "0")}`);
}
