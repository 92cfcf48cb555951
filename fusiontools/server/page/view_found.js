// What was found: the analysis as what it is, the votes, the answer with its sources, two answers word by word.

import { h } from "./dom.js";
import { safeUrl } from "./inline.js";
import { prose } from "./prose.js";
import { update } from "./state.js";
import { answerText, labels } from "./turn.js";
import { hueOf, plural, short } from "./words.js";
import { diff } from "./worddiff.js";

/** What names the members of a turn, each in its colour. */
const namer = (turn) => (name) => h("span", { class: `who hue-${hueOf(turn, name)}`, title: name }, short(name));
const list = (items) => h("ul", null, items.map((item) => h("li", { dir: "auto" }, item)));

function part(title, count, ...children) {
  return count > 0 && h("div", { class: "part" }, h("h4", null, title), children);
}

export function analysisView(turn) {
  const found = turn.analysis;
  const who = namer(turn);
  const get = (name) => found[name] ?? [];
  const judges = found.judges?.length ? `by ${found.judges.map(short).join(", ")}` : "";
  const agreement = typeof found.agreement === "number" ? `${Math.round(found.agreement * 100)} % agreement` : "";
  return h("div", { class: "analysis", role: "group", "aria-label": "Analysis" },
    h("h3", null, "Analysis ", h("span", { class: "dim" }, [judges, agreement].filter(Boolean).join(" · "))),
    part("Contradictions", get("contradictions").length, get("contradictions").map((one) => contradiction(turn, one))),
    h("div", { class: "parts" },
      part("Consensus", get("consensus").length, list(get("consensus"))),
      part("Only some say", get("partial_coverage").length, h("ul", null, get("partial_coverage").map((p) =>
        h("li", { dir: "auto" }, p.point, " ", p.models.map(who))))),
      part("Only one says", get("unique_insights").length, h("ul", null, get("unique_insights").map((u) =>
        h("li", { dir: "auto" }, u.insight, " ", who(u.model))))),
      part("Nobody says", get("blind_spots").length, list(get("blind_spots"))),
      ranking(turn, get("ranking"))));
}

/** Stances side by side, those that are the same in one column with all who hold them. */
function contradiction(turn, { topic, stances }) {
  const held = new Map();
  const place = (name) => (turn.layers.at(-1) ?? []).findIndex((one) => one.label === name);
  for (const { model, stance } of [...stances].sort((a, b) => place(a.model) - place(b.model))) held.set(stance, [...(held.get(stance) ?? []), model]);
  return h("div", { class: "contradiction" },
    h("h5", { dir: "auto" }, topic),
    h("div", { class: "stances" }, [...held].map(([stance, models]) =>
      h("div", { class: "stance" }, h("p", { class: "holders" }, models.map(namer(turn))), h("p", { dir: "auto" }, stance)))));
}

function ranking(turn, places) {
  const names = labels(turn.record?.panel ?? []);
  const who = namer(turn);
  if (!places.length || !names.length) return null;
  return part("Ranking", places.length, h("ol", { class: "ranking" }, places.map((at) => h("li", null, names[at] ? who(names[at]) : at + 1))));
}

export function voteView(turn) {
  const { counts, of, key, kind, voters = {}, abstained = [], tie } = turn.vote;
  const names = labels(turn.record?.panel ?? []);
  const who = namer(turn);
  const rows = Object.entries(counts).sort((a, b) => b[1] - a[1]);
  return h("div", { class: "vote", role: "group", "aria-label": "Vote" },
    h("h3", null, "Vote ", h("span", { class: "dim" }, `over ${kind}`, tie && ` · tie broken by ${tie}`)),
    h("ul", { class: "bars" }, rows.map(([one, votes]) =>
      h("li", { key: one, class: one === key ? "won" : "" },
        h("span", { class: "key", dir: "auto" }, one),
        h("span", { class: "bar" }, h("span", { class: "fill", style: { width: `${of ? (100 * votes) / of : 0}%` } })),
        h("span", { class: "figures" }, `${votes} of ${of}`),
        h("span", { class: "voters" }, (voters[one] ?? []).map((at) => names[at] && who(names[at])))))),
    abstained.length > 0 && h("p", { class: "dim small" }, "Not counted: ", abstained.map((at) => names[at] && who(names[at]))));
}

const MADE = { synth: "written by", vote: "voted for, as said by", pick: "picked, from", panel: "one member's, as it is:", solo: "asked alone:" };

export function answerView(turn, running) {
  const { answer, error } = turn;
  const text = answerText(turn);
  const made = answer ? `${MADE[answer.by] ?? answer.by} ${short(answer.model ?? "")}` : "";
  const end = answer && !["stop", "tool_calls"].includes(answer.finish_reason ?? "stop") ? `ended early: ${answer.finish_reason}` : "";
  return h("div", { class: "answer", role: "group", "aria-label": "Answer" },
    h("h3", null, text ? "Answer " : turn.status === "stopped" ? "Stopped " : "No answer ", h("span", { class: "dim" }, [made, end].filter(Boolean).join(" · "))),
    error && faultView(turn, error),
    turn.status === "stopped" && h("p", { class: "dim" }, "Stopped; what was written until then stays."),
    text && h("div", { class: "prose", widget: cited, turn, text, done: !running }),
    (answer?.tool_calls?.length ?? 0) > 0 && h("pre", { class: "calls", tabindex: "0" }, answer.tool_calls.map((c) => `${c.function.name}(${c.function.arguments})`).join("\n")),
    sourcesView(turn, answer?.sources ?? []),
    degradedView(turn.record?.degraded ?? []));
}

/** Why there is no answer; where each member has a reason of its own, each reason on its own line. */
function faultView(turn, error) {
  const reasons = new Map();
  for (const { member, error: own } of turn.record?.panel ?? []) {
    if (own) reasons.set(own.message, [...(reasons.get(own.message) ?? []), member]);
  }
  const code = error.code && h("b", null, `${error.code}: `);
  if (reasons.size < 2 || error.code !== "all_failed") return h("p", { class: "fault", role: "alert", dir: "auto" }, code, error.message);
  const who = namer(turn);
  return h("div", { class: "fault", role: "alert" }, h("p", null, code, "nobody answered"),
    h("ul", null, [...reasons].map(([message, members]) => h("li", { dir: "auto" }, [...new Set(members)].map(who), message))));
}

/** The answer's prose; once it is whole, a link to one of its sources gets that source's number, which leads to the list. */
function cited(node, props) {
  prose(node, props);
  const sources = props.done ? (props.turn.answer?.sources ?? []) : [];
  if (!sources.length || node.querySelector(".cite")) return;
  const numbers = new Map(sources.map((source, i) => [pageOf(source.url), i + 1]));
  const back = new Set();
  for (const a of node.querySelectorAll("a")) {
    const number = numbers.get(pageOf(a.href));
    if (!number) continue;
    const mark = document.createElement("sup");
    const to = document.createElement("a");
    mark.className = "cite";
    if (!back.has(number)) mark.id = citeId(props.turn, number);
    back.add(number);
    to.href = `#${sourceId(props.turn, number)}`;
    to.textContent = `[${number}]`;
    to.setAttribute("aria-label", `Source ${number}`);
    mark.append(to);
    a.after(mark);
  }
}

const citeId = (turn, number) => `cite-${turn.id}-${number}`;
const sourceId = (turn, number) => `source-${turn.id}-${number}`;

/** An address without what leads within its page. */
function pageOf(text) {
  const url = safeUrl(text);
  return url ? `${url.origin}${url.pathname.replace(/\/$/, "")}${url.search}` : text;
}

function sourcesView(turn, sources) {
  return sources.length > 0 && h("div", { class: "sources", role: "group", "aria-label": "Sources" },
    h("h4", null, "Sources"), h("ol", null, sources.map((source, i) => {
      const url = safeUrl(source.url);
      const words = source.title || source.url;
      return h("li", { id: sourceId(turn, i + 1), dir: "auto" },
        url ? h("a", { href: url.href, rel: "noopener noreferrer nofollow", target: "_blank" }, words) : words,
        h("span", { class: "dim" }, ` ${url?.host ?? ""} · ${source.how}`, source.date && ` · ${source.date}`),
        h("a", { class: "back", href: `#${citeId(turn, i + 1)}`, "aria-label": `Back to where source ${i + 1} is cited` }, " ↩"));
    })));
}

function degradedView(notes) {
  return notes.length > 0 && h("details", { class: "degraded" },
    h("summary", null, `${plural(notes.length, "thing")} did not go as asked`),
    h("ul", null, notes.map((note) => h("li", { dir: "auto" }, h("b", null, `${note.code}: `), note.detail))));
}

export function compareView(turn, state) {
  const others = state.turns.filter((t) => t !== turn && (t.of ?? t.id) === (turn.of ?? turn.id) && answerText(t));
  const other = others.find((t) => t.id === turn.view.compare) ?? others[0];
  if (!other) return null;
  const pieces = diff(answerText(other), answerText(turn));
  return h("div", { class: "compare", role: "group", "aria-label": "Comparison" },
    h("h3", null, "Word by word ", others.length > 1
      ? h("select", { "aria-label": "Compare with", value: other.id, onchange: (e) => update(() => (turn.view = { ...turn.view, compare: e.target.value })) },
          others.map((t) => h("option", { key: t.id, value: t.id }, nameOf(t))))
      : h("span", { class: "dim" }, `against ${nameOf(other)}`)),
    pieces
      ? h("p", { class: "diff", dir: "auto" }, pieces.map(([kind, text]) => (kind === "same" ? text : h(kind === "in" ? "ins" : "del", null, text))))
      : h("p", { class: "dim" }, "These texts are too long to compare here; `fuse-diff` reads their records."));
}

const nameOf = (turn) => [turn.recipe, turn.chain, turn.answer?.model && short(turn.answer.model)].filter(Boolean).join(" · ");
