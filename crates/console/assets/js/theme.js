// Light, dark, or as the system is. Kept in this browser only.

const KEY = "theme";
const ORDER = ["auto", "light", "dark"];

export const theme = () => (ORDER.includes(localStorage.getItem(KEY)) ? localStorage.getItem(KEY) : "auto");

export function nextTheme() {
  localStorage.setItem(KEY, ORDER[(ORDER.indexOf(theme()) + 1) % ORDER.length]);
  applyTheme();
}

export function applyTheme() {
  document.documentElement.dataset.theme = theme();
}
