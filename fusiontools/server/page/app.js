// Begins the page: draws it whenever its state changes, listens to keys and to files that are dropped.

import * as actions from "./actions.js";
import { patch } from "./dom.js";
import { onChange, state, update } from "./state.js";
import { pageView, toggleHistory } from "./view.js";

const root = document.getElementById("page");
onChange((current) => patch(root, pageView(current).filter(Boolean)));
actions.openHistory();
actions.connect().then(() => requestAnimationFrame(() => document.getElementById("question")?.focus()));

const typing = (target) => /^(?:INPUT|TEXTAREA|SELECT)$/.test(target.tagName);

const KEYS = {
  n: actions.startAnew,
  a: () => document.getElementById("question")?.focus(),
  "?": () => update((s) => (s.helpOpen = !s.helpOpen)),
  "/": searchHistory,
  j: () => step(1),
  k: () => step(-1),
  "[": () => round(-1),
  "]": () => round(1),
};

addEventListener("keydown", (event) => {
  if (event.key === "Escape") return escape();
  if (typing(event.target) || event.ctrlKey || event.metaKey || event.altKey) return undefined;
  const act = KEYS[event.key];
  if (!act) return undefined;
  event.preventDefault();
  return act();
});

function escape() {
  if (state.helpOpen) return update((s) => (s.helpOpen = false));
  if (actions.stopAll()) return undefined;
  if (state.historyOpen) return toggleHistory();
  return undefined;
}

function searchHistory() {
  if (!state.historyOpen) toggleHistory();
  requestAnimationFrame(() => requestAnimationFrame(() => document.getElementById("search")?.focus()));
}

function step(by) {
  const turns = [...document.querySelectorAll(".turn")];
  const at = turns.findIndex((turn) => turn.getBoundingClientRect().bottom > 80);
  turns[Math.max(0, Math.min(turns.length - 1, at + by))]?.scrollIntoView();
}

function round(by) {
  const turn = state.turns.findLast((t) => t.layers.length > 1);
  if (!turn) return;
  const last = turn.layers.length - 1;
  update(() => (turn.shownLayer = Math.max(0, Math.min(last, (turn.shownLayer ?? last) + by))));
}

addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files.length) actions.importFiles([...event.dataTransfer.files]);
});
addEventListener("online", actions.connect);
