// The history: what was asked, to look through, open, save and load.

import * as actions from "./actions.js";
import { h } from "./dom.js";
import { search } from "./history.js";
import { update } from "./state.js";
import { count, plural, usd, when } from "./words.js";

const PAGE = 60;

export function historyView(state) {
  const found = search(state.entries, state.historyQuery);
  const shown = found.slice(0, state.historyShown);
  return h("aside", { key: "history", class: "history", id: "history", "aria-label": "History" },
    h("label", { class: "sr", for: "search" }, "Search the history"),
    h("input", {
      id: "search", type: "search", placeholder: `Search ${plural(state.entries.length, "question")}`, value: state.historyQuery, dir: "auto",
      oninput: (e) => update((s) => Object.assign(s, { historyQuery: e.target.value, historyShown: PAGE })),
    }),
    state.historyFault && h("p", { class: "fault", role: "alert" }, state.historyFault),
    found.length === 0 && h("p", { class: "dim" }, state.entries.length ? "Nothing has all these words." : "Nothing was asked yet."),
    h("ol", { class: "entries" }, shown.map((entry) => entryView(entry, state))),
    found.length > shown.length && h("button", {
      class: "plain", onclick: () => update((s) => (s.historyShown += PAGE)),
    }, `${count(found.length - shown.length)} more`),
    h("div", { class: "buttons" },
      h("button", { class: "plain", onclick: actions.exportHistory, disabled: !state.entries.length }, "Export"),
      h("label", { class: "button plain" }, "Import",
        h("input", { type: "file", multiple: true, accept: ".jsonl,.json,.ndjson", class: "sr", onchange: (e) => actions.importFiles([...e.target.files]) })),
      h("button", { class: "plain", disabled: !state.entries.length, onclick: () => clear(state) }, state.clearing ? "Really clear?" : "Clear")));
}

function clear(state) {
  if (!state.clearing) return update((s) => (s.clearing = true));
  update((s) => (s.clearing = false));
  return actions.forget(state.entries.map((entry) => entry.id));
}

function entryView(entry, state) {
  const current = state.thread === entry.thread;
  const line = [when(entry.at), entry.recipe, entry.of && "again", entry.status !== "done" && entry.status, usd(entry.cost)];
  return h("li", { key: entry.id, class: current ? "current" : "" },
    h("button", { class: "entry", "aria-current": current ? "true" : null, onclick: () => actions.openEntry(entry) },
      h("span", { class: "title", dir: "auto" }, entry.title || "(no text)"),
      h("span", { class: "dim small" }, line.filter(Boolean).join(" · "))),
    h("button", { class: "icon", "aria-label": `Forget: ${entry.title}`, title: "Forget", onclick: () => actions.forget([entry.id]) }, "×"));
}
