// Two texts word by word: what both have, what only one has.

const MOST_WORDS = 4000;
const words = (text) => text.match(/\p{Script=Han}|\s+|[^\s\p{Script=Han}]+/gu) ?? [];

/** Return pieces `[kind, text]`: "same", "out" (only in the first), "in" (only in the second); null: too long for it. */
export function diff(before, after) {
  const a = words(before);
  const b = words(after);
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head += 1;
  let tail = 0;
  while (tail < a.length - head && tail < b.length - head && a.at(-1 - tail) === b.at(-1 - tail)) tail += 1;
  const [left, right] = [a.slice(head, a.length - tail), b.slice(head, b.length - tail)];
  if (left.length > MOST_WORDS || right.length > MOST_WORDS) return null;
  const pieces = [];
  const add = (kind, text) => {
    if (!text) return;
    if (pieces.at(-1)?.[0] === kind) pieces.at(-1)[1] += text;
    else pieces.push([kind, text]);
  };
  add("same", a.slice(0, head).join(""));
  for (const [kind, word] of common(left, right)) add(kind, word);
  add("same", a.slice(a.length - tail).join(""));
  return pieces;
}

/** The longest common subsequence of words, by a table of lengths. */
function common(a, b) {
  const width = b.length + 1;
  const longest = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      longest[i * width + j] = a[i] === b[j]
        ? longest[(i + 1) * width + j + 1] + 1
        : Math.max(longest[(i + 1) * width + j], longest[i * width + j + 1]);
    }
  }
  const out = [];
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      out.push(["same", a[i]]);
      i += 1;
      j += 1;
    }
    else if (j >= b.length || (i < a.length && longest[(i + 1) * width + j] >= longest[i * width + j + 1])) out.push(["out", a[i++]]);
    else out.push(["in", b[j++]]);
  }
  return out;
}
