// A report of `fuse-report -o json`, drawn: how good each system is, with what is not known of it, and what it costs.

import { h } from "./dom.js";
import { update } from "./state.js";
import { usd } from "./words.js";

const percent = (value) => (value === null || value === undefined ? "" : `${(100 * value).toFixed(1)}`);

export function reportView(report) {
  const systems = [...report.systems].sort((a, b) => (b.score ?? 0) - (a.score ?? 0));
  return h("article", { class: "report", "aria-label": "Report" },
    h("header", { class: "turn-line" },
      h("h2", null, "Report"), h("span", { class: "tag" }, report.name), h("span", { class: "figures" }, `${report.tasks} tasks, ${report.records} records`),
      h("button", { class: "plain", onclick: () => update((s) => (s.report = null)) }, "Close")),
    h("dl", { class: "verdicts" }, (report.answers ?? []).map((said) => [
      h("dt", null, said.question), h("dd", null, h("b", null, said.answer), " ", said.why)])),
    h("div", { class: "wide", tabindex: "0", role: "group", "aria-label": "Systems" }, h("table", null,
      h("thead", null, h("tr", null, ["System", "Score, % (95 %)", "", "USD a task", "Calls", "p50 s"].map((t) => h("th", { scope: "col" }, t)))),
      h("tbody", null, systems.map((row) => systemRow(row, row.system === report.subject))))),
    h("h3", null, "Against its rivals"),
    h("div", { class: "wide", tabindex: "0", role: "group", "aria-label": "Comparisons" }, h("table", null,
      h("thead", null, h("tr", null, ["Against", "Difference, points", "Wins", "Ties", "Losses", "p", "Verdict"].map((t) => h("th", { scope: "col" }, t)))),
      h("tbody", null, report.comparisons.map(comparisonRow)))),
    report.notes?.length > 0 && h("section", null, h("h3", null, "Notes"), h("ul", null, report.notes.map((note) => h("li", null, note)))));
}

function systemRow(row, subject) {
  return h("tr", { class: subject ? "subject" : "" },
    h("th", { scope: "row" }, row.system),
    h("td", { class: "at-end" }, `${percent(row.score)} (${percent(row.low)} … ${percent(row.high)})`),
    h("td", { class: "interval-cell" }, interval(row)),
    h("td", { class: "at-end" }, row.usd_per_task === null ? "" : usd(row.usd_per_task)),
    h("td", { class: "at-end" }, row.calls_per_task?.toFixed(1)),
    h("td", { class: "at-end" }, row.p50_s?.toFixed(1)));
}

/** The score as a point, its interval as a line, on a scale from 0 to 1. */
function interval({ score, low, high, system }) {
  const at = (value) => 2 + 156 * Math.max(0, Math.min(1, value ?? 0));
  return h("svg", { viewBox: "0 0 160 12", width: 160, height: 12, role: "img", "aria-label": `${system}: ${percent(score)} %` },
    h("line", { x1: 2, x2: 158, y1: 6, y2: 6, class: "axis" }),
    h("line", { x1: at(low), x2: at(high), y1: 6, y2: 6, class: "range" }),
    h("circle", { cx: at(score), cy: 6, r: 3.5, class: "point" }));
}

function comparisonRow(row) {
  const points = (value) => (value === null || value === undefined ? "" : `${value > 0 ? "+" : ""}${(100 * value).toFixed(1)}`);
  return h("tr", null,
    h("th", { scope: "row" }, row.rival ? `${row.against}: ${row.rival}` : row.against),
    h("td", { class: "at-end" }, `${points(row.difference)} (${points(row.low)} … ${points(row.high)})`),
    [row.wins, row.ties, row.losses].map((n) => h("td", { class: "at-end" }, n)),
    h("td", { class: "at-end" }, row.p_holm?.toFixed(3) ?? row.p?.toFixed(3)),
    h("td", null, row.verdict));
}
