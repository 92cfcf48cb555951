// Markdown into blocks: the part of CommonMark and of GitHub's tables that models write. HTML is text like any other.

const FENCE = /^( {0,3})(`{3,}|~{3,})[ \t]*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$/;
const RULE = /^ {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])(?:([ \t]+)(.*)|)$/;
const QUOTE = /^ {0,3}> ?/;
const DELIMITERS = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
const BLANK = /^\s*$/;
const DEEPEST = 8;
/** A last line that may yet become the mark of a block, or be text: which one, the next characters say. */
const UNDECIDED = /^\s*(?:#{1,6}|[-*+_=]{1,3}|\d{1,9}[.)]?|>+|`+[^`\n]*|~+[^~\n]*|\|?[\s:|-]*)\s*$/;

/**
 * Cut a text into its blocks.
 * @param {string} text
 * @param {boolean} writing whether more of it will come: then a mark that is not whole is held back.
 * @returns {Array<object>} blocks, each with `at`, where it starts: `{type: "p", text}`, `{type: "h", level, text}`,
 *   `{type: "code", lang, text, closed}`, `{type: "list", ordered, start, items: [[block]]}`,
 *   `{type: "quote", blocks}`, `{type: "table", head, align, rows}`, `{type: "hr"}`
 */
export function parse(text, writing = false) {
  const lines = text.split("\n");
  const starts = [];
  let at = 0;
  for (const line of lines) {
    starts.push(at);
    at += line.length + 1;
  }
  const held = writing ? held_back(lines) : lines;
  return blocksOf(held, 0).map((block) => ({ ...block, at: starts[block.line] }));
}

function held_back(lines) {
  let end = lines.length;
  if (lines.at(-1) !== "" && UNDECIDED.test(lines.at(-1))) end -= 1;
  // The head of a table is none before its second line has come.
  const head = lines[end - 1] === "" ? end - 2 : end - 1;
  if (head >= 0 && head >= lines.length - 2 && /^\s*\|/.test(lines[head]) && BLANK.test(lines[head - 1] ?? "")) end = head;
  return end < lines.length ? [...lines.slice(0, end), ""] : lines;
}

function blocksOf(lines, depth) {
  const blocks = [];
  let i = 0;
  while (i < lines.length) {
    if (BLANK.test(lines[i])) {
      i += 1;
      continue;
    }
    const [block, next] = blockAt(lines, i, depth);
    block.line = i;
    blocks.push(block);
    i = next;
  }
  return blocks;
}

function blockAt(lines, i, depth) {
  const line = lines[i];
  const fence = FENCE.exec(line);
  if (fence) return code(lines, i, fence);
  const heading = HEADING.exec(line);
  if (heading) return [{ type: "h", level: heading[1].length, text: heading[2] ?? "" }, i + 1];
  if (RULE.test(line)) return [{ type: "hr" }, i + 1];
  if (depth < DEEPEST && QUOTE.test(line)) return quote(lines, i, depth);
  if (depth < DEEPEST && ITEM.test(line)) return list(lines, i, depth);
  if (line.includes("|") && DELIMITERS.test(lines[i + 1] ?? "") && cells(line).length === cells(lines[i + 1]).length) {
    return table(lines, i);
  }
  return paragraph(lines, i, depth);
}

function code(lines, i, [, indent, mark, info]) {
  const end = new RegExp(`^ {0,3}\\${mark[0]}{${mark.length},}[ \\t]*$`);
  const body = [];
  let at = i + 1;
  while (at < lines.length && !end.test(lines[at])) {
    body.push(lines[at].replace(new RegExp(`^ {0,${indent.length}}`), ""));
    at += 1;
  }
  const closed = at < lines.length;
  // The last line of a text that is not closed is the empty one behind its line break.
  if (!closed && body.at(-1) === "") body.pop();
  return [{ type: "code", lang: info.trim().split(/\s/)[0], text: body.join("\n"), closed }, at + 1];
}

function quote(lines, i, depth) {
  const inner = [];
  let at = i;
  while (at < lines.length && !BLANK.test(lines[at]) && (QUOTE.test(lines[at]) || !interrupts(lines[at]))) {
    inner.push(lines[at].replace(QUOTE, ""));
    at += 1;
  }
  return [{ type: "quote", blocks: blocksOf(inner, depth + 1) }, at];
}

function list(lines, i, depth) {
  const first = ITEM.exec(lines[i]);
  const ordered = /\d/.test(first[2]);
  const kind = ordered ? first[2].at(-1) : first[2];
  const items = [];
  let at = i;
  let width = 0;
  while (at < lines.length) {
    const line = lines[at];
    const item = ITEM.exec(line);
    const indent = line.length - line.trimStart().length;
    if (item && indent <= first[1].length + 1 && !RULE.test(line)) {
      if ((/\d/.test(item[2]) ? item[2].at(-1) : item[2]) !== kind) break;
      width = item[1].length + item[2].length + Math.min(item[3]?.length ?? 1, 4);
      items.push([item[4] ?? ""]);
    } else if (BLANK.test(line)) {
      const next = lines.slice(at + 1).find((l) => !BLANK.test(l));
      if (next === undefined) break;
      const further = ITEM.exec(next);
      if (!further && next.length - next.trimStart().length < Math.min(width, 2)) break;
      items.at(-1).push("");
    } else if (indent >= Math.min(width, 2) || (!BLANK.test(lines[at - 1]) && !interrupts(line))) {
      items.at(-1).push(line.slice(Math.min(indent, width)));
    } else break;
    at += 1;
  }
  const start = ordered ? Number.parseInt(first[2], 10) : null;
  return [{ type: "list", ordered, start, items: items.map((inner) => blocksOf(inner, depth + 1)) }, at];
}

function cells(line) {
  const inner = line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "");
  return inner.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function table(lines, i) {
  const align = cells(lines[i + 1]).map((d) => (d.endsWith(":") ? (d.startsWith(":") ? "center" : "end") : "start"));
  const rows = [];
  let at = i + 2;
  while (at < lines.length && !BLANK.test(lines[at]) && lines[at].includes("|")) {
    const row = cells(lines[at]);
    rows.push(align.map((_, n) => row[n] ?? ""));
    at += 1;
  }
  return [{ type: "table", head: cells(lines[i]), align, rows }, at];
}

function paragraph(lines, i, depth) {
  let at = i + 1;
  while (at < lines.length && !BLANK.test(lines[at]) && !interrupts(lines[at]) && !startsTable(lines, at)) at += 1;
  const text = lines.slice(i, at).map((line) => line.trimStart()).join("\n");
  return [{ type: "p", text: text.trimEnd() }, at];
}

function startsTable(lines, at) {
  const next = lines[at + 1] ?? "";
  return lines[at].includes("|") && next.includes("|") && DELIMITERS.test(next);
}

function interrupts(line) {
  const item = ITEM.exec(line);
  return FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || Boolean(item?.[4]);
}
