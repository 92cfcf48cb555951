// Figures as a person reads them.

export function usd(value) {
  if (value === null || value === undefined) return "cost unknown";
  if (value === 0) return "$0";
  if (value < 0.0001) return "<$0.0001";
  return `$${value.toFixed(value < 1 ? 4 : 2)}`;
}

export function seconds(value) {
  if (value === null || value === undefined) return "";
  if (value < 0.1) return "< 0.1 s";
  if (value < 10) return `${value.toFixed(1)} s`;
  if (value < 90) return `${Math.round(value)} s`;
  return `${Math.floor(value / 60)} min ${Math.round(value % 60)} s`;
}

export const count = (value) => value.toLocaleString("en");

export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

export function when(at) {
  const then = new Date(at);
  const today = new Date().toDateString() === then.toDateString();
  const two = (n) => String(n).padStart(2, "0");
  const clock = `${two(then.getHours())}:${two(then.getMinutes())}`;
  return today ? clock : `${then.getFullYear()}-${two(then.getMonth() + 1)}-${two(then.getDate())} ${clock}`;
}

/** A model's name without its maker, where a column is narrow; the whole stands in its title. */
export const short = (name) => name.slice(name.lastIndexOf("/") + 1) || name;

const bare = (label) => label.replace(/#\d+$/, "");

/** A number from 0 to 7 for a member of a turn: it has the same colour wherever it is named; a stranger has the last. */
export function hueOf(turn, label) {
  const names = [...new Set((turn.layers[0] ?? []).map((one) => bare(one.label)))];
  const at = names.indexOf(bare(label));
  return at < 0 ? 7 : at % 7;
}
