// A model's text as it is read: blocks that are finished keep their nodes, only the last one is made again.

import { highlight } from "./highlight.js";
import { inline } from "./inline.js";
import { parse } from "./markdown.js";

/** So much of a text is set; what is longer stands behind it as it is, for who opens it. */
export const MOST = 100_000;

/** A widget for `h`: shows the `text` of its props as Markdown, which is `done` or still being written. */
export function prose(node, { text, done }) {
  const was = node._prose;
  if (was && was.text === text && was.done === done) return;
  if (!was || !text.startsWith(was.text) || was.done) node.replaceChildren();
  const before = was && text.startsWith(was.text) && !was.done ? was : { from: 0, kept: 0 };
  const set = text.slice(0, MOST);
  // At the end all is set once from the start where a mark had been held back or taken for closed.
  const blocks = parse(set.slice(before.from), !done);
  while (node.childNodes.length > before.kept) node.lastChild.remove();
  blocks.forEach((block, i) => node.append(standing(block, !done && i === blocks.length - 1)));
  if (text.length > MOST) node.append(rest(text));
  const last = blocks.at(-1);
  const final = Math.max(0, blocks.length - 1);
  node._prose = { text, done, from: before.from + (last?.at ?? 0), kept: before.kept + final };
}

function rest(text) {
  const details = document.createElement("details");
  const summary = document.createElement("summary");
  summary.textContent = `${(text.length - MOST).toLocaleString("en")} more characters, as plain text`;
  details.append(summary);
  details.addEventListener("toggle", () => {
    if (!details.open || details.querySelector("pre")) return;
    const pre = document.createElement("pre");
    pre.tabIndex = 0;
    pre.textContent = text.slice(MOST);
    details.append(pre);
  });
  return details;
}

const MAKERS = {
  p: (block, open) => element("p", inline(block.text, open)),
  h: (block, open) => element(`h${Math.min(6, block.level + 2)}`, inline(block.text, open)),
  hr: () => element("hr", []),
  code: (block) => codeBlock(block),
  quote: (block, open) => element("blockquote", nested(block.blocks, open)),
  list: (block, open) => listNode(block, open),
  table: (block, open) => tableNode(block, open),
};

/** Return the node of a block; where it is `open` its end is still being written. */
function blockNode(block, open) {
  return MAKERS[block.type](block, open);
}

/** Return the node of a block that stands by itself: each runs in its own direction, an Arabic one beside an English. */
function standing(block, open) {
  const node = blockNode(block, open);
  // What is within follows by the style sheet: an element with a `dir` of its own says nothing of its parent's.
  if (block.type !== "code" && block.type !== "hr") node.dir = "auto";
  return node;
}

function nested(blocks, open) {
  return blocks.map((block, i) => blockNode(block, open && i === blocks.length - 1));
}

function element(tag, children) {
  const node = document.createElement(tag);
  node.append(...children);
  return node;
}

function codeBlock({ lang, text, closed }) {
  const pre = document.createElement("pre");
  pre.tabIndex = 0;
  pre.dir = "ltr";
  if (lang) pre.dataset.lang = lang.slice(0, 20);
  const code = document.createElement("code");
  if (closed) highlight(code, text, lang);
  else code.textContent = text;
  pre.append(code);
  return pre;
}

function listNode({ ordered, start, items }, open) {
  const list = document.createElement(ordered ? "ol" : "ul");
  if (ordered && start !== 1) list.start = start;
  items.forEach((blocks, i) => {
    const item = document.createElement("li");
    const last = open && i === items.length - 1;
    const tight = blocks.length && blocks[0].type === "p";
    // The words of an item stand in it themselves: a list of one-liners is no list of paragraphs.
    if (tight) item.append(...inline(blocks[0].text, last && blocks.length === 1));
    item.append(...nested(tight ? blocks.slice(1) : blocks, last));
    list.append(item);
  });
  return list;
}

function tableNode({ head, align, rows }, open) {
  const row = (cells, tag, last) => element("tr", cells.map((cell, i) => {
    const node = element(tag, inline(cell, last));
    if (align[i] !== "start") node.classList.add(`at-${align[i]}`);
    return node;
  }));
  const table = element("table", [
    element("thead", [row(head, "th", false)]),
    element("tbody", rows.map((cells, i) => row(cells, "td", open && i === rows.length - 1))),
  ]);
  const box = element("div", [table]);
  box.className = "wide";
  box.tabIndex = 0;
  return box;
}
