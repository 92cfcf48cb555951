// Colours for code: comments, strings, numbers and the words that most languages reserve. Text nodes and spans, no more.

const HASH = "#[^\\n]*";
const SLASHES = "//[^\\n]*|/\\*[\\s\\S]*?(?:\\*/|$)";
const DASHES = "--[^\\n]*";
const MARKUP = "<!--[\\s\\S]*?(?:-->|$)";
const COMMENTS = new Map();
for (const [kinds, pattern] of [
  ["python py bash sh shell zsh fish yaml yml toml ruby rb r make makefile dockerfile perl ini elixir nim", HASH],
  ["sql lua haskell hs ada elm", DASHES],
  ["html xml svg vue markdown md", MARKUP],
  ["php", `${SLASHES}|${HASH}`],
]) {
  for (const kind of kinds.split(" ")) COMMENTS.set(kind, pattern);
}
const WORDS = new Set(
  ("abstract and as assert async await begin bool break case catch char class const continue crate def default del do " +
    "double elif else end enum except export extends extern false finally float fn for from func function global go if " +
    "impl implements import in include instanceof int interface is lambda let long match mod module mut namespace new " +
    "nil None nonlocal not null of or package pass private protected pub public raise ref return select self short " +
    "static str string struct super switch template then this throw trait true True False try type typedef typeof " +
    "union unsafe unsigned use using var void volatile when where while with yield " +
    "SELECT FROM WHERE INSERT INTO UPDATE DELETE JOIN LEFT RIGHT INNER OUTER ON GROUP BY ORDER HAVING LIMIT CREATE TABLE " +
    "VALUES SET AND OR NOT NULL AS DISTINCT UNION ALL echo fi done esac local").split(" "),
);
const STRINGS = "\"\"\"[\\s\\S]*?(?:\"\"\"|$)|'''[\\s\\S]*?(?:'''|$)|\"(?:\\\\.|[^\"\\\\\\n])*\"|'(?:\\\\.|[^'\\\\\\n])*'|`(?:\\\\.|[^`\\\\])*`";
const NUMBERS = "\\b(?:0[xob][\\da-fA-F_]+|\\d[\\d_]*(?:\\.\\d+)?(?:[eE][+-]?\\d+)?)\\b";
/** Longer than this nobody reads for its colours. */
const LONGEST = 40_000;

/** Put code into a node, coloured. */
export function highlight(node, text, lang) {
  if (!lang || ["text", "txt", "plain", "output"].includes(lang) || text.length > LONGEST) {
    node.textContent = text;
    return;
  }
  const comment = COMMENTS.get(lang.toLowerCase()) ?? SLASHES;
  const pattern = new RegExp(`(${comment})|(${STRINGS})|(${NUMBERS})|([A-Za-z_]\\w*)`, "g");
  const parts = [];
  let at = 0;
  for (const found of text.matchAll(pattern)) {
    const kind = found[1] ? "comment" : found[2] ? "string" : found[3] ? "number" : WORDS.has(found[4]) ? "word" : "";
    if (!kind) continue;
    if (found.index > at) parts.push(text.slice(at, found.index));
    const span = document.createElement("span");
    span.className = `hl-${kind}`;
    span.textContent = found[0];
    parts.push(span);
    at = found.index + found[0].length;
  }
  parts.push(text.slice(at));
  node.replaceChildren(...parts);
}
