// A turn: one question and all that became of it, from the events of a run or from a record that was kept.

let count = 0;

export function newId() {
  count += 1;
  return `${Date.now().toString(36)}-${count}-${Math.random().toString(36).slice(2, 8)}`;
}

/** A turn that has been asked and of which nothing is known yet. */
export function begin(body, { thread, recipe, chain, question, of = null }) {
  return {
    id: newId(), thread, of, at: Date.now(), question, recipe, chain, body, over: Boolean(body.record),
    status: "running", run: "", began: performance.now(), seconds: 0,
    layers: [], shownLayer: null, stages: [], analysis: null, vote: null, answer: null, record: null, error: null,
    cost: 0, unknownCosts: 0, heard: "", view: {},
  };
}

/** What a layer's members look like before they have answered. */
function member(label, layer) {
  return {
    label, layer, status: "writing", text: "", began: performance.now(), seconds: null, cost: null, tokens: null,
    message: "", code: "",
  };
}

function seat(turn, label, layer) {
  while (turn.layers.length < layer) turn.layers.push([]);
  const row = turn.layers[layer - 1];
  let found = row.find((m) => m.label === label);
  if (!found) row.push((found = member(label, layer)));
  return found;
}

const layerOf = (event) => event.layer ?? Number(/^layer (\d+)$/.exec(event.step ?? "")?.[1] ?? 1);

/** Change a turn by an event of its stream. */
export function take(turn, event) {
  const kinds = {
    run: () => (turn.run = event.run),
    text: () => (seat(turn, event.model, event.layer).text += event.text),
    "text.reset": () => (seat(turn, event.model, event.layer).text = ""),
    answer: () => (turn.heard += event.text),
    "call.began": () => beginCall(turn, event),
    "call.done": () => settleCall(turn, event),
    "call.failed": () => settleCall(turn, event),
    analysis: () => (turn.analysis = event.analysis),
    stage: () => endStage(turn, event),
    record: () => end(turn, event.record, null),
    error: () => end(turn, event.record ?? null, event.error),
  };
  kinds[event.type]?.();
}

function beginCall(turn, event) {
  const stage = stageOf(turn, event.stage);
  stage.status = "running";
  if (event.stage === "panel") seat(turn, event.model, layerOf(event));
}

function stageOf(turn, name) {
  let stage = turn.stages.findLast((s) => s.name === name && s.status !== "done");
  if (!stage) turn.stages.push((stage = { name, status: "running" }));
  return stage;
}

function settleCall(turn, event) {
  const failed = event.type === "call.failed";
  if (typeof event.cost_usd === "number") turn.cost += event.cost_usd;
  else if (!failed) turn.unknownCosts += 1;
  if (event.stage !== "panel") return;
  const one = seat(turn, event.model, layerOf(event));
  one.seconds = event.latency_s;
  one.cost = event.cost_usd;
  one.tokens = event.completion_tokens ?? null;
  if (failed) Object.assign(one, { status: event.error === "stopped" ? "stopped" : "failed", code: event.error, message: event.message });
  else one.status = "done";
}

function endStage(turn, event) {
  const stage = stageOf(turn, event.stage);
  stage.status = "done";
  turn.record = { ...turn.record, ...event.record };
  if (event.stage === "panel") settle(turn, turn.record);
  if (event.record.analysis) turn.analysis = event.record.analysis;
}

function end(turn, record, error) {
  if (error && !record) return stop(turn, error);
  turn.status = error && !record.answer ? "failed" : "done";
  turn.error = error;
  turn.seconds = (performance.now() - turn.began) / 1000;
  settle(turn, (turn.record = record));
  for (const stage of turn.stages) stage.status = "done";
  return undefined;
}

/** The person stopped it, or an `error` broke it off (`{code, message}`): what was heard stays. */
export function stop(turn, error = null) {
  const status = error ? "failed" : "stopped";
  Object.assign(turn, { status, error, seconds: (performance.now() - turn.began) / 1000 });
  const cut = error ? { status, code: error.code || "connection", message: error.message } : { status };
  for (const one of turn.layers.flat()) if (one.status === "writing") Object.assign(one, cut);
  for (const stage of turn.stages) if (stage.status === "running") stage.status = status;
  turn.record ??= partialRecord(turn);
}

/** What was heard of a panel that was stopped, as a record that can be gone on with: who had not finished has failed. */
function partialRecord(turn) {
  const panel = (turn.layers.at(-1) ?? []).map((one) => {
    const [name, sample] = splitLabel(one.label);
    const head = { member: name, sample, layer: one.layer };
    if (one.status === "done") return { ...head, content: one.text, finish_reason: "stop", tool_calls: [] };
    return { ...head, error: { code: one.code || "stopped", message: one.message || "stopped by whoever asked" } };
  });
  const question = { id: turn.id, messages: turn.body.messages ?? turn.body.record?.messages ?? [] };
  return panel.length ? { ...question, panel } : question;
}

function splitLabel(label) {
  const found = /^(.*)#(\d+)$/.exec(label);
  return found ? [found[1], Number(found[2])] : [label, 0];
}

/** Draw a turn's members, analysis, votes and answer from its record; texts that were heard of failed ones stay. */
export function settle(turn, record) {
  const layers = [...(record.layers ?? []), ...(record.panel ? [record.panel] : [])];
  if (layers.length) {
    const heard = new Map(turn.layers.flat().map((one) => [`${one.layer}/${one.label}`, one.text]));
    turn.layers = layers.map((panel) => labels(panel).map((label, i) => memberOf(panel[i], label, record, heard)));
  }
  turn.analysis = record.analysis ?? null;
  turn.answer = record.answer ?? null;
  turn.vote = record.answer?.vote ?? null;
  if (record.error && !turn.error) turn.error = record.error;
  // Of a panel that stood the calls were paid for by the turn before.
  const bought = (record.calls ?? []).slice(turn.body.record?.calls?.length ?? 0);
  turn.cost = bought.reduce((sum, call) => sum + (call.cost_usd ?? 0), 0);
  turn.unknownCosts = bought.filter((call) => call.cost_usd === null).length;
}

function memberOf(response, label, record, heard) {
  const own = (record.calls ?? []).filter(
    (c) => c.stage === "panel" && c.member === response.member && (c.sample ?? 0) === response.sample && (c.layer ?? 1) === response.layer,
  );
  const last = own.at(-1);
  const failed = response.error;
  return {
    ...member(label, response.layer),
    status: failed ? (failed.code === "stopped" ? "stopped" : "failed") : "done",
    text: response.content || (heard.get(`${response.layer}/${label}`) ?? ""),
    seconds: last?.latency_s ?? null,
    cost: own.some((c) => c.cost_usd === null) ? null : own.reduce((sum, c) => sum + c.cost_usd, 0),
    tokens: last?.usage?.completion_tokens ?? null,
    tries: own.length, code: failed?.code ?? "", message: failed?.message ?? "",
    calls: response.tool_calls ?? [], tools: response.tool_runs ?? [],
  };
}

/** The names of a panel's responses: a member's own, with the sample's number where it answered more than once. */
export function labels(panel) {
  const times = new Map();
  for (const r of panel) times.set(r.member, (times.get(r.member) ?? 0) + 1);
  return panel.map((r) => (times.get(r.member) > 1 ? `${r.member}#${r.sample}` : r.member));
}

/** A turn from a record that was kept or dropped on the page. */
export function fromRecord(record, more = {}) {
  const turn = begin({ messages: record.messages }, {
    thread: newId(), recipe: record.recipe?.name ?? "", chain: "", question: lastQuestion(record.messages), ...more,
  });
  Object.assign(turn, { status: record.error && !record.answer ? "failed" : "done", record, ...more });
  turn.seconds = more.seconds ?? null;
  settle(turn, record);
  turn.cost = more.cost ?? turn.cost;
  const made = [["panel", record.panel], ["judge", record.analysis], [record.answer?.by ?? "answer", record.answer]];
  turn.stages = made.filter(([, section]) => section).map(([name]) => ({ name, status: "done" }));
  return turn;
}

/** The text of the last question of a conversation. */
export function lastQuestion(messages) {
  return textOf((messages ?? []).findLast((m) => m.role === "user")?.content);
}

export function textOf(content) {
  if (typeof content === "string") return content;
  return (content ?? []).filter((part) => part.type === "text").map((part) => part.text).join("\n");
}

/** The answer's text as far as there is one. */
export const answerText = (turn) => turn.answer?.content ?? turn.heard;
