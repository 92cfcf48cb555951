// One turn as it is seen: the question, the panel in columns, what was found, the answer, and what can be done next.

import * as actions from "./actions.js";
import { h } from "./dom.js";
import { prose } from "./prose.js";
import * as share from "./share.js";
import { update } from "./state.js";
import { answerText } from "./turn.js";
import { chainDrawing, named } from "./view_ask.js";
import { analysisView, answerView, compareView, voteView } from "./view_found.js";
import { count, hueOf, plural, seconds, short, usd } from "./words.js";

export function turnView(turn, state) {
  const running = turn.status === "running";
  return h("article", { key: turn.id, id: `turn-${turn.id}`, class: `turn ${turn.status}`, "aria-busy": String(running) },
    headView(turn, state),
    // Over a panel that stands only what is new is shown: the rest is right above.
    turn.layers.length > 0 && !(turn.over && turn.of) && panelView(turn),
    turn.vote && voteView(turn),
    turn.analysis && (!turn.over || /judge/.test(turn.chain || "judge")) && analysisView(turn),
    (answerText(turn) || turn.error || turn.status === "stopped") && answerView(turn, running),
    turn.view.compare && compareView(turn, state),
    !running && footView(turn, state));
}

function headView(turn, state) {
  const running = turn.status === "running";
  const spent = running ? (performance.now() - turn.began) / 1000 : turn.seconds;
  const cost = turn.unknownCosts ? `${usd(turn.cost)} + ${plural(turn.unknownCosts, "unknown cost")}` : usd(turn.cost);
  const chain = turn.over ? turn.chain || "judge | synth" : share.chainOf(turn.body, state.recipes).join(" | ");
  // One alone is stopped where the question is written.
  const several = running && state.turns.filter((t) => t.status === "running").length > 1;
  return h("header", { class: "turn-head" },
    turn.of
      ? h("p", { class: "dim variant" }, turn.over ? "Again, over the same panel" : `Beside it: ${turn.recipe}`)
      : h("h2", { class: "question", dir: "auto" }, turn.question || "(no text)"),
    h("div", { class: "turn-line" },
      turn.recipe && h("span", { class: "tag" }, turn.recipe),
      turn.stages.length > 0 && chainDrawing(turn.body.fusion ? named(chain) : turn.stages.map((s) => s.name).join(" | "), turn.stages),
      running && h("span", { class: "dim small", role: "status" }, progress(turn)),
      h("span", { class: "figures" }, [seconds(spent), cost].filter(Boolean).join(" · ")),
      several && h("button", { class: "stop", onclick: () => actions.stopTurn(turn) }, "Stop")));
}

function progress(turn) {
  const stage = turn.stages.findLast((s) => s.status === "running")?.name;
  if (stage !== "panel") return stage ? `${stage} works` : "";
  const members = turn.layers.at(-1) ?? [];
  return `${members.filter((one) => one.status !== "writing").length} of ${members.length} have answered`;
}

// --- The panel ---

function panelView(turn) {
  const last = turn.layers.length - 1;
  const shown = Math.min(turn.shownLayer ?? last, last);
  return h("div", { class: "panel", role: "group", "aria-label": "Panel" },
    last > 0 && roundsView(turn, shown),
    h("div", { class: "columns" }, turn.layers[shown].map((one) => columnView(turn, one))));
}

/** Rounds of a debate, or layers, to step through. */
function roundsView(turn, shown) {
  const go = (at) => update(() => (turn.shownLayer = at));
  const move = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) go(Math.max(0, Math.min(turn.layers.length - 1, shown + step)));
  };
  return h("div", { class: "rounds", role: "group", "aria-label": "Rounds", onkeydown: move },
    turn.layers.map((_, i) => h("button", { class: "plain", "aria-pressed": String(i === shown), onclick: () => go(i) }, `Round ${i + 1}`)),
    h("span", { class: "dim" }, changesIn(turn, shown)));
}

function changesIn(turn, shown) {
  if (!shown) return "";
  const before = new Map(turn.layers[shown - 1].map((one) => [one.label, one.text]));
  const changed = turn.layers[shown].filter((one) => before.get(one.label) !== one.text).length;
  return `${changed} of ${turn.layers[shown].length} changed their answer`;
}

function columnView(turn, one) {
  const writing = one.status === "writing";
  const spent = writing && one.seconds === null ? (performance.now() - one.began) / 1000 : one.seconds;
  const figures = [
    seconds(spent), one.tokens !== null && `${count(one.tokens)} tok`, (one.cost !== null || one.status === "done") && usd(one.cost),
    one.tries > 1 && `${one.tries} tries`,
  ];
  return h("div", { key: `${one.layer}/${one.label}`, class: `column ${one.status}`, role: "group", "aria-label": one.label },
    h("header", null,
      h("span", { class: `dot hue-${hueOf(turn, one.label)}`, "aria-hidden": "true" }),
      h("h3", { title: one.label }, short(one.label)),
      h("span", { class: `status ${one.status}` }, one.status),
      writing && turn.status === "running" && h("button", {
        class: "icon", title: "Stop this member", "aria-label": `Stop ${one.label}`, onclick: () => actions.stopMember(turn, one),
      }, "×")),
    h("p", { class: "figures" }, figures.filter(Boolean).join(" · ") || " "),
    one.message && h("p", { class: "fault", dir: "auto" }, h("b", null, `${one.code}: `), one.message),
    h("div", { class: "body", tabindex: "0", role: "group", "aria-label": `${one.label}: response`, widget: following, onscroll: scrolled, text: one.text, done: !writing }),
    one.tools?.length > 0 && h("p", { class: "dim small" }, `Looked up: ${one.tools.map((t) => t.name).join(", ")}`),
    one.calls?.length > 0 && h("pre", { class: "calls", tabindex: "0" }, one.calls.map((c) => `${c.function.name}(${c.function.arguments})`).join("\n")));
}

/** Prose that follows its end while it is written, until the reader scrolls up in it. */
function following(node, props) {
  if (!node._prose_box) {
    node._prose_box = document.createElement("div");
    node._prose_box.className = "prose";
    node.append(node._prose_box);
    node._follows = true;
    node._top = 0;
  }
  prose(node._prose_box, props);
  const ends = props.done && !node._done;
  node._done = props.done;
  if (node._follows && (!props.done || ends)) node.scrollTop = node._top = node.scrollHeight - node.clientHeight;
}

/** Only a reader goes up; what is written goes down. */
function scrolled(event) {
  const node = event.currentTarget;
  if (node.scrollTop < node._top - 1) node._follows = false;
  else if (node.scrollHeight - node.scrollTop - node.clientHeight < 8) node._follows = true;
  node._top = node.scrollTop;
}

// --- What can be done next ---

function footView(turn, state) {
  const open = (name) => () => update(() => (turn.view = { ...turn.view, open: turn.view.open === name ? "" : name }));
  const others = state.turns.filter((t) => t !== turn && (t.of ?? t.id) === (turn.of ?? turn.id) && answerText(t));
  const button = (name, label) => h("button", { class: "plain", "aria-expanded": String(turn.view.open === name), onclick: open(name) }, label);
  const usable = turn.record?.panel?.some((r) => !r.error);
  return h("footer", { class: "turn-foot" },
    h("div", { class: "buttons" },
      answerText(turn) && h("button", { class: "plain", onclick: () => actions.copy(answerText(turn), "Answer") }, "Copy answer"),
      usable && button("again", "Do again"),
      button("beside", "Another recipe"),
      others.length > 0 && h("button", {
        class: "plain", "aria-pressed": String(Boolean(turn.view.compare)),
        onclick: () => update(() => (turn.view = { ...turn.view, compare: turn.view.compare ? null : others.at(0).id })),
      }, "Compare"),
      button("share", "As a command"),
      turn.record && h("button", { class: "plain", onclick: () => actions.exportTurn(turn) }, "Save record")),
    turn.view.open === "again" && againView(turn, state),
    turn.view.open === "beside" && besideView(turn, state),
    turn.view.open === "share" && shareView(turn, state));
}

function againView(turn, state) {
  const submit = (event) => {
    event.preventDefault();
    const said = Object.fromEntries(new FormData(event.currentTarget));
    update(() => (turn.view = { ...turn.view, open: "" }));
    actions.again(turn, said);
  };
  return h("form", { class: "foot-form", onsubmit: submit },
    h("p", { class: "dim" }, "The members' responses stand; only what is named here is asked."),
    h("label", null, "Chain", h("input", { name: "chain", class: "mono", dir: "ltr", placeholder: "judge | synth", list: "chains" })),
    h("datalist", { id: "chains" }, ["judge | synth", "synth", "vote", "pick", "judge | synth --refine"].map((c) => h("option", { value: c }))),
    h("datalist", { id: "again-models" }, (state.server?.models ?? []).map((name) => h("option", { key: name, value: name }))),
    h("label", null, "Judge", h("input", { name: "judge", list: "again-models" })),
    h("label", null, "Synthesizer", h("input", { name: "synth", list: "again-models" })),
    h("button", { class: "primary" }, "Do again"));
}

function besideView(turn, state) {
  const submit = (event) => {
    event.preventDefault();
    update(() => (turn.view = { ...turn.view, open: "" }));
    actions.beside(turn, new FormData(event.currentTarget).get("recipe"));
  };
  return h("form", { class: "foot-form", onsubmit: submit },
    h("label", null, "Recipe", h("select", { name: "recipe" }, state.recipes.map((r) => h("option", { key: r.name, value: r.name }, r.name)))),
    h("button", { class: "primary" }, "Ask it too"));
}

function shareView(turn, state) {
  const lines = [
    ["Shell", share.shellLine(turn.body, state.recipes)],
    ["curl", share.curl(turn.body, location.origin, state.locked)],
    ...(turn.body.record ? [] : [["Python, OpenAI's SDK", share.sdk(turn.body, location.origin, state.locked)]]),
  ];
  return h("dl", { class: "share" }, lines.map(([name, text]) => [
    h("dt", null, name, h("button", { class: "plain", onclick: () => actions.copy(text, name) }, "Copy")),
    h("dd", null, h("pre", { tabindex: "0", dir: "ltr" }, text)),
  ]));
}
