// What a person can do; each changes the state, and what is seen follows.

import * as api from "./api.js";
import * as history from "./history.js";
import { emptyDraft, notify, state, update } from "./state.js";
import { answerText, begin, fromRecord, lastQuestion, newId, stop, take } from "./turn.js";

/** The streams under way, by turn. */
const running = new Map();

/** Ask the server what it is; once more where it could not be reached or wants a key. */
export async function connect() {
  try {
    const [server, listed] = await Promise.all([api.get("/page/state"), api.get("/recipes")]);
    update((s) => {
      Object.assign(s, { server, recipes: listed.data, defaultRecipe: listed.default, connection: "ready" });
      if (!s.recipes.some((r) => r.name === s.draft.recipe)) s.draft.recipe = listed.default;
    });
    estimateSoon();
  } catch (error) {
    if (error.status === 401) update((s) => Object.assign(s, { connection: "locked", notice: s.connection === "locked" ? error.message : "" }));
    else update((s) => (s.connection = "offline"));
  }
}

export async function openHistory() {
  const fault = await history.open();
  const entries = await history.entries().catch(() => []);
  update((s) => Object.assign(s, { historyFault: fault, entries }));
}

/** Unlock the server with one of its keys, or give it an endpoint's; neither is kept anywhere but in memory. */
export async function unlock(key) {
  api.useKey(key);
  update((s) => (s.locked = true));
  await connect();
}

export async function bringKey(endpoint, key) {
  try {
    await api.post("/page/key", { endpoint, key });
    update((s) => Object.assign(s, { keyEndpoint: "", endpointsOpen: false }));
    await connect();
    notify(`${endpoint} has its key now, until the server ends.`);
  } catch (error) {
    notify(error.message);
  }
}

// --- The draft ---

/** What is sent for a draft: the body of a question, without what is only for streams. */
export function bodyOf(draft, turns) {
  const messages = [];
  if (draft.system.trim()) messages.push({ role: "system", content: draft.system.trim() });
  messages.push(...conversation(turns));
  messages.push({ role: "user", content: contentOf(draft) });
  const fusion = {};
  if (draft.recipe) fusion.recipe = draft.recipe;
  if (draft.chain.trim()) fusion.chain = draft.chain.trim();
  for (const [name, value] of Object.entries(draft.overrides)) {
    if (value !== "" && value !== null && value !== false && !(Array.isArray(value) && !value.length)) fusion[name] = value;
  }
  return { messages, fusion };
}

/** The turns before this one that were answered, as messages; of several answers to one question the last. */
function conversation(turns) {
  const last = new Map();
  for (const turn of turns) if (turn.record && answerText(turn)) last.set(turn.of ?? turn.id, turn);
  return [...last.values()].flatMap((turn) => {
    const asked = (turn.record.messages ?? turn.body.messages ?? []).findLast((m) => m.role === "user");
    return [asked ?? { role: "user", content: turn.question }, { role: "assistant", content: answerText(turn) }];
  });
}

function contentOf(draft) {
  const texts = draft.files.filter((file) => file.text !== undefined);
  const images = draft.files.filter((file) => file.url !== undefined);
  const attached = texts.map((file) => `\n\n<file name="${file.name}">\n${file.text}\n</file>`).join("");
  const text = `${draft.text.trim()}${attached}`;
  if (!images.length) return text;
  return [{ type: "text", text }, ...images.map((file) => ({ type: "image_url", image_url: { url: file.url } }))];
}

export function change(fields) {
  update((s) => Object.assign(s.draft, fields));
  estimateSoon();
}

export function override(name, value) {
  change({ overrides: { ...state.draft.overrides, [name]: value } });
}

export async function attach(files) {
  for (const file of files) {
    try {
      const image = file.type.startsWith("image/");
      const read = image ? { url: await asDataUrl(file) } : { text: await asText(file) };
      update((s) => s.draft.files.push({ name: file.name, size: file.size, ...read }));
    } catch (error) {
      notify(`${file.name}: ${error.message}`);
    }
  }
  estimateSoon();
}

const asDataUrl = (file) =>
  new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });

async function asText(file) {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
  } catch {
    throw new Error("neither an image nor text in UTF-8");
  }
}

let estimating = null;

function estimateSoon() {
  clearTimeout(estimateSoon.timer);
  estimateSoon.timer = setTimeout(estimate, 350);
}

async function estimate() {
  estimating?.abort();
  if (!state.draft.text.trim() || state.connection !== "ready") return update((s) => (s.estimate = null));
  const control = (estimating = new AbortController());
  const { messages, fusion } = bodyOf(state.draft, state.turns);
  try {
    const found = await api.post("/v1/estimate", { model: "fusion", messages, fusion }, control.signal);
    update((s) => (s.estimate = found));
  } catch (error) {
    if (!control.signal.aborted) update((s) => (s.estimate = { error: error.message }));
  }
  return undefined;
}

// --- Runs ---

export async function ask() {
  const { draft } = state;
  if (!draft.text.trim() || state.connection !== "ready") return;
  const body = bodyOf(draft, state.turns);
  const thread = state.thread || newId();
  const kept = { recipe: draft.recipe, chain: draft.chain, overrides: draft.overrides, system: draft.system };
  update((s) => {
    s.thread = thread;
    s.draft = { ...emptyDraft(), ...kept };
    s.estimate = null;
  });
  await follow(begin(body, { thread, recipe: draft.recipe, chain: draft.chain, question: draft.text.trim() }));
}

/** Let other stages go over the panel of a turn: its members are not asked again. */
export async function again(turn, { chain, judge, synth }) {
  const fusion = { recipe: turn.recipe || state.defaultRecipe };
  if (!state.recipes.some((r) => r.name === fusion.recipe)) fusion.recipe = state.defaultRecipe;
  if (chain) fusion.chain = chain;
  if (judge) fusion.judge = judge;
  if (synth) fusion.synth = synth;
  const { id, messages, params, meta, evidence, epoch, layers, panel, spared, analysis, calls } = turn.record;
  const record = { id, messages, params, meta, evidence, epoch, layers, panel, spared, analysis, calls };
  const more = { thread: turn.thread, recipe: fusion.recipe, chain: chain || "", question: turn.question, of: turn.of ?? turn.id };
  await follow(begin({ record, fusion }, more));
}

/** Ask the same question of another recipe, beside this one. */
export async function beside(turn, recipe) {
  const messages = turn.record?.messages ?? turn.body.messages;
  const more = { thread: turn.thread, recipe, chain: "", question: turn.question, of: turn.of ?? turn.id };
  await follow(begin({ messages, fusion: { recipe } }, more));
}

async function follow(turn) {
  const control = new AbortController();
  running.set(turn.id, control);
  update((s) => {
    const at = turn.of ? s.turns.findLastIndex((t) => t.id === turn.of || t.of === turn.of) + 1 : s.turns.length;
    s.turns.splice(at, 0, turn);
  });
  const ticking = setInterval(() => update(), 1000);
  try {
    await api.stream("/fuse", { ...turn.body, stream: true }, (event) => update(() => take(turn, event)), control.signal);
  } catch (error) {
    if (control.signal.aborted) update(() => stop(turn));
    else {
      update(() => stop(turn, { code: error.code, message: error.message }));
      if (error.status === 0) connect();
      if (error.status === 401) update((s) => (s.connection = "locked"));
    }
  } finally {
    clearInterval(ticking);
    running.delete(turn.id);
  }
  await remember(turn);
}

async function remember(turn) {
  const entry = history.entryOf(turn, answerText(turn));
  const fault = await history.keep(entry, turn.record ?? { id: turn.id, messages: turn.body.messages ?? [] });
  update((s) => {
    s.entries = [entry, ...s.entries.filter((e) => e.id !== entry.id)];
    if (fault) s.historyFault = fault;
  });
}

export function stopTurn(turn) {
  running.get(turn.id)?.abort();
}

export function stopAll() {
  for (const control of running.values()) control.abort();
  return running.size > 0;
}

export async function stopMember(turn, member) {
  try {
    await api.post(`/fuse/${turn.run}/stop`, { member: member.label });
  } catch (error) {
    notify(error.message);
  }
}

// --- Conversations and records ---

export function startAnew() {
  update((s) => Object.assign(s, { turns: [], thread: "", report: null }));
  document.getElementById("question")?.focus();
}

export async function openEntry(entry) {
  const family = state.entries.filter((e) => e.thread === entry.thread).sort((a, b) => a.at - b.at);
  const turns = [];
  for (const one of family) {
    const live = state.turns.find((t) => t.id === one.id);
    const record = live ? null : await history.recordOf(one.id);
    if (live) turns.push(live);
    else if (record) turns.push(fromRecord(record, { ...one, question: lastQuestion(record.messages) || one.title }));
  }
  update((s) => Object.assign(s, { turns, thread: entry.thread, report: null, historyOpen: s.historyOpen && innerWidth > 900 }));
  requestAnimationFrame(() => document.getElementById(`turn-${entry.id}`)?.scrollIntoView());
}

export async function forget(ids) {
  await history.forget(ids);
  update((s) => (s.entries = s.entries.filter((entry) => !ids.includes(entry.id))));
}

/** Take files that were dropped or chosen: records as JSON Lines or JSON, a report of `fuse-report -o json`. */
export async function importFiles(files) {
  for (const file of files) {
    try {
      await importText(await asText(file), file.name);
    } catch (error) {
      notify(`${file.name}: ${error.message}`);
    }
  }
}

async function importText(text, name) {
  let found;
  try {
    found = [JSON.parse(text)].flat();
  } catch {
    found = text.split("\n").flatMap((line, i) => (line.trim() ? [parseLine(line, i + 1)] : []));
  }
  const report = found.find((value) => Array.isArray(value?.systems) && Array.isArray(value?.comparisons));
  if (report) return update((s) => (s.report = { ...report, name }));
  const records = found.filter((value) => Array.isArray(value?.messages));
  if (!records.length) throw new Error("neither records nor a report of `fuse-report -o json`");
  const turns = records.map((record) => fromRecord(record));
  for (const turn of turns) await remember(turn);
  update((s) => {
    if (turns.length === 1) Object.assign(s, { turns, thread: turns[0].thread, report: null });
    else Object.assign(s, { historyOpen: true, notice: `${records.length} records are in the history now` });
  });
  return undefined;
}

function parseLine(line, number) {
  try {
    return JSON.parse(line);
  } catch {
    throw new Error(`line ${number} is no JSON`);
  }
}

export const exportHistory = async () => save(await history.exportAll(state.entries), "fusiontools.jsonl");
export const exportTurn = (turn) => save(new Blob([`${JSON.stringify(turn.record)}\n`]), "record.jsonl");

function save(blob, name) {
  const a = document.createElement("a");
  a.href = URL.createObjectURL(blob);
  a.download = name;
  a.click();
  setTimeout(() => URL.revokeObjectURL(a.href), 1000);
}

export async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    notify(`${what} copied`);
  } catch {
    notify("The browser does not let the page copy; select the text instead");
  }
}

