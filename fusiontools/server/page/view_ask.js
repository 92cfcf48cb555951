// Where a question is written: its text, the recipe, what may be changed of it, and what it would cost.

import * as actions from "./actions.js";
import { h } from "./dom.js";
import { chainOf, steps } from "./share.js";
import { update } from "./state.js";
import { count, plural, short, usd } from "./words.js";

export function askView(state) {
  const { draft } = state;
  const recipe = state.recipes.find((r) => r.name === draft.recipe);
  const busy = state.turns.some((turn) => turn.status === "running");
  const chain = recipe ? chainOf({ fusion: { ...draft.overrides, recipe: recipe.name, chain: draft.chain } }, state.recipes) : [];
  const ready = state.connection === "ready" && draft.text.trim() && !busy;
  return h("form", { class: "ask", "aria-label": "Ask", onsubmit: submit, ondragover: allow, ondrop: dropped },
    h("label", { class: "sr", for: "question" }, "Question"),
    h("textarea", {
      id: "question", dir: "auto", rows: state.turns.length ? 1 : 3, value: draft.text,
      placeholder: state.turns.length ? "A further question; the conversation so far is sent along" : "Your question",
      oninput: (e) => actions.change({ text: e.target.value }), onkeydown: keys, onpaste: pasted,
    }),
    draft.files.length > 0 && h("ul", { class: "files", "aria-label": "Attached" }, draft.files.map(fileView)),
    h("div", { class: "ask-row" },
      overridable(state, "recipe") && recipeSelect(state, recipe),
      h("button", {
        type: "button", class: "plain", "aria-expanded": String(draft.optionsOpen), "aria-controls": "options",
        onclick: () => update((s) => (s.draft.optionsOpen = !s.draft.optionsOpen)),
      }, "Options", changed(draft) > 0 && h("span", { class: "badge" }, changed(draft))),
      h("label", { class: "button plain" }, "Attach",
        h("input", { type: "file", multiple: true, class: "sr", onchange: (e) => actions.attach([...e.target.files]) })),
      h("span", { class: "estimate", role: "status" }, estimateWords(state.estimate)),
      busy
        ? h("button", { type: "button", class: "stop", onclick: actions.stopAll, title: "Esc" }, "Stop")
        : h("button", { type: "submit", class: "primary", disabled: !ready, title: "Ctrl+Enter", "aria-keyshortcuts": "Control+Enter" }, "Ask", h("kbd", { "aria-hidden": "true" }, "Ctrl ↵"))),
    recipe && h("div", { class: "recipe-line" },
      chainDrawing(named(chain.join(" | "))),
      h("span", { class: "description" }, [recipe.description, whoIsAsked(recipe, draft, chain)].filter(Boolean).join(" "))),
    draft.optionsOpen && optionsView(state, recipe));
}

const overridable = (state, name) => state.server?.overrides.includes(name) ?? false;

const changed = (draft) =>
  Number(Boolean(draft.chain.trim())) + Number(Boolean(draft.system.trim())) +
  Object.values(draft.overrides).filter((v) => v !== "" && v !== false && v !== null && !(Array.isArray(v) && !v.length)).length;

function recipeSelect(state, recipe) {
  return h("label", { class: "field" }, h("span", { class: "sr" }, "Recipe"),
    h("select", { id: "recipe", value: state.draft.recipe, title: recipe?.description, onchange: (e) => actions.change({ recipe: e.target.value }) },
      state.recipes.map((r) => h("option", { key: r.name, value: r.name }, `${r.name} · ${plural(members(r), "member")}`))));
}

/** Who would be asked, with what the options say otherwise; a judge only where the chain has one. */
function whoIsAsked(recipe, { overrides }, chain) {
  const has = (stage) => chain.some((step) => step.split(" ")[0] === stage);
  const panel = overrides.panel?.length ? overrides.panel : recipe.panel.map((m) => m.model + (m.samples > 1 ? `*${m.samples}` : ""));
  const named = [
    ["Members", panel],
    ["Judge", has("judge") ? [overrides.judge || recipe.judge].flat() : []],
    ["Synthesizer", has("synth") ? [overrides.synth || recipe.synth].flat() : []],
  ];
  return named.filter(([, names]) => names.length).map(([role, names]) => `${role}: ${names.map(short).join(", ")}`).join(" · ");
}

const members = (recipe) => recipe.panel.reduce((sum, m) => sum + m.samples, 0);

/** A chain without its models' names: what stands beside it says them. */
export const named = (chain) => chain.replace(/ -m ('[^']*'|\S+)/g, "");

/** A chain as its steps, with their options. */
export function chainDrawing(text, stages = []) {
  const list = steps(text);
  return h("ol", { class: "chain", "aria-label": "Chain" }, list.map((step) => {
    const [name, ...options] = step.split(/\s+/);
    const status = stages.findLast((s) => s.name === name)?.status;
    return h("li", { class: status ? `step ${status}` : "step" }, h("b", null, name), options.length > 0 && h("span", null, options.join(" ")));
  }));
}

function estimateWords(found) {
  if (!found) return "";
  if (found.error) return h("span", { class: "fault" }, found.error);
  const { calls, cost_usd: most, least } = found;
  const range = (from, to) => (from === to ? to : `${from} to ${to}`);
  const price = most === null ? "price unknown" : `about ${range(usd(least.cost_usd), usd(most))}`;
  return `${least.calls < calls ? `${count(least.calls)} to ` : ""}${plural(calls, "call")} · ${price}`;
}

function fileView(file, i) {
  return h("li", { key: `${file.name}-${i}` },
    file.url ? h("img", { src: file.url, alt: "", width: 24, height: 24 }) : null,
    h("span", { dir: "auto" }, file.name), h("span", { class: "dim" }, `${count(Math.ceil(file.size / 1024))} KiB`),
    h("button", { type: "button", class: "icon", "aria-label": `Remove ${file.name}`, onclick: () => update((s) => s.draft.files.splice(i, 1)) }, "×"));
}

function optionsView(state, recipe) {
  const { draft } = state;
  const may = (name) => overridable(state, name);
  const models = h("datalist", { id: "models" }, (state.server?.models ?? []).map((name) => h("option", { key: name, value: name })));
  const text = (name, label, placeholder, list) => may(name) && h("label", null, label,
    h("input", { value: draft.overrides[name] ?? "", placeholder, list, spellcheck: "false", oninput: (e) => actions.override(name, e.target.value.trim()) }));
  const number = (name, label, most) => may(name) && h("label", null, label,
    h("input", { type: "number", min: 1, max: most, value: draft.overrides[name] ?? "", oninput: (e) => actions.override(name, e.target.value ? Number(e.target.value) : "") }));
  const tick = (name, label) => may(name) && h("label", { class: "tick" },
    h("input", { type: "checkbox", checked: draft.overrides[name] ?? false, onchange: (e) => actions.override(name, e.target.checked) }), label);
  return h("fieldset", { id: "options", class: "options" }, h("legend", { class: "sr" }, "Options"), models,
    h("label", { class: "wide-field" }, "System text",
      h("textarea", { dir: "auto", rows: 2, value: draft.system, oninput: (e) => actions.change({ system: e.target.value }) })),
    may("chain") && h("label", { class: "wide-field" }, "Chain",
      h("input", { value: draft.chain, placeholder: recipe?.chain, spellcheck: "false", class: "mono", dir: "ltr", oninput: (e) => actions.change({ chain: e.target.value }) })),
    may("panel") && h("label", { class: "wide-field" }, "Members, as MODEL or MODEL*N, between spaces",
      h("input", {
        value: (draft.overrides.panel ?? []).join(" "), class: "mono", dir: "ltr", spellcheck: "false", list: "models",
        placeholder: recipe?.panel.map((m) => (m.samples > 1 ? `${m.model}*${m.samples}` : m.model)).join(" "),
        onchange: (e) => actions.override("panel", e.target.value.split(/\s+/).filter(Boolean)),
      })),
    text("judge", "Judge", recipe?.judge[0], "models"), text("synth", "Synthesizer", recipe?.synth[0], "models"),
    number("samples", "Samples of each", 64), number("layers", "Layers", 8),
    may("max_cost_usd") && h("label", null, "At most, USD",
      h("input", { type: "number", min: 0, step: "any", value: draft.overrides.max_cost_usd ?? "", oninput: (e) => actions.override("max_cost_usd", e.target.value ? Number(e.target.value) : "") })),
    h("div", { class: "ticks" }, tick("refine", "Refine the answer once"), tick("guard", "Keep the best response where it is no worse"),
      tick("web_search", "Members search the web")));
}

function submit(event) {
  event.preventDefault();
  actions.ask();
}

function keys(event) {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    actions.ask();
  }
}

function pasted(event) {
  const files = [...event.clipboardData.files];
  if (!files.length) return;
  event.preventDefault();
  actions.attach(files);
}

const allow = (event) => event.preventDefault();

/** Files dropped on the question belong to it; elsewhere on the page they are opened. */
function dropped(event) {
  event.preventDefault();
  event.stopPropagation();
  actions.attach([...event.dataTransfer.files]);
}
