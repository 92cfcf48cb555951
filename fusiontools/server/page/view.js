// The whole page as a function of its state.

import * as actions from "./actions.js";
import { h } from "./dom.js";
import { update } from "./state.js";
import { askView } from "./view_ask.js";
import { historyView } from "./view_history.js";
import { reportView } from "./view_report.js";
import { turnView } from "./view_turn.js";

export function pageView(state) {
  return [
    headerView(state),
    state.historyOpen && historyView(state),
    h("main", { key: "main", id: "main" },
      connectionView(state),
      state.report ? reportView(state.report) : h("div", { class: "turns" }, state.turns.map((turn) => turnView(turn, state))),
      !state.report && state.turns.length === 0 && state.connection === "ready" && emptyView(state),
      !state.report && state.connection !== "locked" && askView(state)),
    state.helpOpen && helpView(),
    h("div", { key: "notice", class: state.notice ? "notice" : "notice sr", role: "status" }, state.notice),
  ];
}

function headerView(state) {
  return h("header", { key: "header", class: "top" },
    h("h1", null, "fusiontools"),
    h("nav", { "aria-label": "Page" },
      h("button", { class: "plain", "aria-expanded": String(state.historyOpen), "aria-controls": "history", title: "/", onclick: toggleHistory }, "History"),
      h("button", { class: "plain", title: "n", onclick: actions.startAnew }, "New"),
      h("button", { class: "plain", title: "?", "aria-expanded": String(state.helpOpen), onclick: () => update((s) => (s.helpOpen = !s.helpOpen)) }, "Shortcuts"),
      state.server?.endpoints.some((e) => e.takes_key) && h("button", {
        class: "plain", "aria-expanded": String(state.endpointsOpen), onclick: () => update((s) => (s.endpointsOpen = !s.endpointsOpen)),
      }, "Endpoints")),
    h("span", { class: `connection ${state.connection}` }, CONNECTION[state.connection]));
}

const CONNECTION = { loading: "", ready: "", locked: "locked", offline: "offline" };

export function toggleHistory() {
  update((s) => (s.historyOpen = !s.historyOpen));
}

function connectionView(state) {
  if (state.connection === "offline") {
    return h("section", { class: "banner", role: "alert" },
      h("p", null, h("b", null, "The server does not answer. "), "What was asked is in the history, and what you write stays here. Start `fuse-serve` again, or look at what it said last."),
      h("button", { class: "plain", onclick: actions.connect }, "Try again"));
  }
  if (state.connection === "locked") return unlockView();
  const lacking = state.server?.endpoints.filter((e) => e.needed && e.lacks);
  if (!lacking?.length && !state.endpointsOpen) return null;
  return keyView(state, lacking);
}

function unlockView() {
  const submit = (event) => {
    event.preventDefault();
    const field = event.currentTarget.elements.key;
    actions.unlock(field.value);
    field.value = "";
  };
  return h("form", { class: "banner", onsubmit: submit },
    h("label", null, h("b", null, "This server wants one of its keys."), " It is kept in this tab's memory until it is closed or loaded again.",
      h("input", { name: "key", type: "password", autocomplete: "off", required: true, autofocus: true })),
    h("button", { class: "primary" }, "Unlock"));
}

function keyView(state, lacking) {
  const takes = state.server.endpoints.filter((e) => e.takes_key);
  const submit = (event) => {
    event.preventDefault();
    const { endpoint, key } = event.currentTarget.elements;
    actions.bringKey(endpoint.value, key.value);
    key.value = "";
  };
  const keyless = lacking.filter((e) => e.lacks_key);
  const words = lacking.filter((e) => !takes.includes(e)).map((e) => h("p", null, h("b", null, `${e.name} cannot be asked: `), e.lacks));
  if (!takes.length || (!keyless.length && !state.endpointsOpen)) return h("section", { class: "banner", role: "alert" }, words);
  const title = keyless.length ? `The server has no key for ${keyless.map((e) => e.name).join(", ")}. ` : "A key for an endpoint that has none. ";
  return h("form", { class: "banner", onsubmit: submit },
    h("p", null, h("b", null, title), "One that is given here is kept in the server's memory alone and is gone when it ends."),
    words,
    h("label", null, "Endpoint", h("select", { name: "endpoint", value: state.keyEndpoint || (takes.find((e) => e.needed) ?? takes[0]).name, onchange: (e) => update((s) => (s.keyEndpoint = e.target.value)) },
      takes.map((e) => h("option", { key: e.name, value: e.name }, e.name)))),
    h("label", null, "Its key", h("input", { name: "key", type: "password", autocomplete: "off", required: true, spellcheck: "false" })),
    h("button", { class: "primary" }, "Use it"));
}

function emptyView(state) {
  return h("section", { class: "empty" },
    h("h2", null, "Ask several models at once"),
    h("p", null, "A question goes to a panel of models. A judge compares what they say, a synthesizer writes one answer; all of it is shown as it happens."),
    h("p", { class: "dim" }, "A record or a report in a file can be dropped on the page. ", state.entries.length > 0 && "Earlier questions are in the history."));
}

const KEYS = [
  ["Ctrl+Enter", "ask"], ["Esc", "stop what is running; close what is open"], ["n", "a new conversation"],
  ["/", "search the history"], ["a", "write a question"], ["j, k", "next and previous turn"], ["[, ]", "previous and next round"], ["?", "these keys"],
];

function helpView() {
  return h("section", { key: "help", class: "help", role: "dialog", "aria-label": "Shortcuts" },
    h("dl", null, KEYS.map(([key, what]) => [h("dt", null, h("kbd", null, key)), h("dd", null, what)])),
    h("button", { class: "plain", onclick: () => update((s) => (s.helpOpen = false)) }, "Close"));
}
