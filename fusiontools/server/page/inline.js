// What stands within a block: emphasis, code, links. Everything becomes a text node or an element made here.

const DEEPEST = 6;
const URL_START = /^https?:\/\/[^\s<>"'`]+/;
const ESCAPED = /^\\([!-/:-@[-`{-~])/;
const MARKS = [
  ["**", "strong"],
  ["__", "strong"],
  ["~~", "del"],
  ["*", "em"],
  ["_", "em"],
];

/** Return whether a link may be followed: the web and mail, nothing that runs and nothing of this machine's disk. */
export function safeUrl(text) {
  let url;
  try {
    url = new URL(text);
  } catch {
    return null;
  }
  return ["http:", "https:", "mailto:"].includes(url.protocol) ? url : null;
}

/** An element that leads away. */
export function link(url, ...children) {
  const node = document.createElement("a");
  node.href = url.href;
  node.rel = "noopener noreferrer nofollow";
  node.target = "_blank";
  node.append(...children);
  return node;
}

/**
 * Return the nodes of a text.
 * @param {boolean} writing whether its end is still being written: marks that are open are taken for closed there.
 */
export function inline(text, writing = false, depth = 0) {
  const nodes = [];
  const hopeless = new Set();
  let plain = "";
  let i = 0;
  const flush = () => {
    if (plain) nodes.push(document.createTextNode(plain));
    plain = "";
  };
  while (i < text.length) {
    const found = SPECIAL.has(text[i]) ? read(text, i, writing, depth, hopeless, plain) : null;
    if (!found) {
      plain += text[i];
      i += 1;
      continue;
    }
    if (typeof found.node === "string") plain += found.node;
    else {
      flush();
      if (found.node) nodes.push(found.node);
    }
    i = found.next;
  }
  flush();
  return nodes;
}

const SPECIAL = new Set("\\`*_~[!<h\n");

function read(text, i, writing, depth, hopeless, before) {
  const rest = text.slice(i, i + 2000);
  switch (text[i]) {
    case "\\":
      return text[i + 1] === "\n" ? brk(i + 2) : ESCAPED.test(rest) ? { node: text[i + 1], next: i + 2 } : null;
    case "\n":
      return before.endsWith("  ") ? brk(i + 1) : { node: "\n", next: i + 1 };
    case "`":
      return codeSpan(text, i, writing, hopeless);
    case "!":
      return text[i + 1] === "[" ? bracketed(text, i + 1, writing, depth, true) : null;
    case "[":
      return depth < DEEPEST ? bracketed(text, i, writing, depth, false) : null;
    case "<":
      return angled(rest, i);
    case "h":
      return bare(rest, i, before);
    default:
      return depth < DEEPEST ? emphasis(text, i, writing, depth, hopeless) : null;
  }
}

const brk = (next) => ({ node: document.createElement("br"), next });

function codeSpan(text, i, writing, hopeless) {
  const run = /^`+/.exec(text.slice(i, i + 50))[0];
  let end = hopeless.has(run) ? -1 : i + run.length - 1;
  do end = end < 0 ? -1 : text.indexOf(run, end + 1);
  while (end >= 0 && (text[end + run.length] === "`" || text[end - 1] === "`"));
  if (end < 0) {
    hopeless.add(run);
    if (!writing) return { node: run, next: i + run.length };
    end = text.length;
  }
  const node = document.createElement("code");
  const inner = text.slice(i + run.length, end).replaceAll("\n", " ").replace(/`+$/, (tail) => (writing ? "" : tail));
  node.textContent = /^ .*[^ ].* $/.test(inner) ? inner.slice(1, -1) : inner;
  return { node, next: Math.min(text.length, end + run.length) };
}

function emphasis(text, i, writing, depth, hopeless) {
  for (const [mark, tag] of MARKS) {
    if (!text.startsWith(mark, i)) continue;
    const start = i + mark.length;
    const within = mark[0] === "_" && /[\p{L}\p{N}]/u.test(text[i - 1] ?? "");
    if (within || (start < text.length && /\s/.test(text[start]))) continue;
    if (start >= text.length) {
      if (writing) return { node: null, next: start };
      continue;
    }
    let end = hopeless.has(mark) ? -1 : closing(text, start, mark);
    if (end < 0) {
      hopeless.add(mark);
      if (!writing || depth > 2) continue;
      end = text.length;
    }
    const node = document.createElement(tag);
    let inner = text.slice(start, end);
    if (writing && end === text.length) inner = inner.replace(/[*_~]+$/, "");
    node.append(...inline(inner, writing && end === text.length, depth + 1));
    return { node, next: Math.min(text.length, end + mark.length) };
  }
  const run = /^[*_~]+/.exec(text.slice(i, i + 50))[0];
  return { node: run, next: i + run.length };
}

function closing(text, start, mark) {
  for (let end = text.indexOf(mark, start + 1); end >= 0; end = text.indexOf(mark, end + 1)) {
    if (/\s/.test(text[end - 1]) || text[end - 1] === "\\") continue;
    const single = mark.length === 1;
    if (single && (text[end + 1] === mark || text[end - 1] === mark)) {
      end += text[end + 1] === mark ? 1 : 0;
      continue;
    }
    if (mark[0] === "_" && /[\p{L}\p{N}]/u.test(text[end + mark.length] ?? "")) continue;
    // `**a *b***`: the inner mark closes first.
    return !single && text[end + 2] === mark[0] ? end + 1 : end;
  }
  return -1;
}

const TARGET = /^\]\(\s*<?((?:[^\s()<>]|\([^\s()]*\))*)>?(?:\s+(?:"[^"]*"|'[^']*'))?\s*\)/;

function bracketed(text, i, writing, depth, image) {
  let level = 0;
  let end = i;
  for (; end < text.length && end < i + 2000; end += 1) {
    if (text[end] === "\\") end += 1;
    else if (text[end] === "[") level += 1;
    else if (text[end] === "]" && --level === 0) break;
  }
  const label = text.slice(i + 1, end);
  const tail = text.slice(end, end + 4000);
  const target = TARGET.exec(tail);
  if (!target) {
    // A link whose address is still being written shows its words alone.
    const open = writing && text[end] === "]" && /^\]\([^)\s]*$/.test(tail);
    return open ? { node: wrap(inline(label, false, depth + 1)), next: text.length } : null;
  }
  const url = safeUrl(target[1]);
  const words = inline(label, false, depth + 1);
  const next = end + target[0].length;
  if (!url) return { node: wrap(words), next };
  // What a model wants loaded may carry the conversation away in its address: it is a link, and says where it leads.
  const shown = image ? [`${label || "image"} (image at ${url.host})`] : words;
  return { node: link(url, ...shown), next };
}

function wrap(nodes) {
  const span = document.createElement("span");
  span.append(...nodes);
  return span;
}

function angled(rest, i) {
  const found = /^<((?:https?:\/\/|mailto:)[^\s<>]+)>/.exec(rest);
  const url = found && safeUrl(found[1]);
  return url ? { node: link(url, found[1]), next: i + found[0].length } : null;
}

function bare(rest, i, before) {
  if (/[\p{L}\p{N}]$/u.test(before)) return null;
  const found = URL_START.exec(rest)?.[0].replace(/[.,;:!?*_~)\]]+$/, "");
  const url = found && safeUrl(found);
  return url?.host ? { node: link(url, found), next: i + found.length } : null;
}
