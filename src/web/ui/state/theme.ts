import { store } from "./store";

export type Theme = "system" | "light" | "dark";

export const THEMES: readonly Theme[] = ["system", "light", "dark"];
const KEY = "model-ledger.theme";

export const theme = store<Theme>(stored());

export function setTheme(next: Theme): void {
  localStorage.setItem(KEY, next);
  theme.set(next);
  applyTheme();
}

export function applyTheme(): void {
  document.documentElement.dataset.theme = theme.get();
}

function stored(): Theme {
  const found = localStorage.getItem(KEY);
  return THEMES.find(one => one === found) ?? "system";
}
