// What was asked, kept in this browser: light entries to look through, and the records beside them.
// Where the browser keeps nothing (private windows, no room) all goes on in memory, and the page says so.

const NAME = "fusiontools";
const STORES = ["entries", "records"];

let database = null;
const memory = { entries: new Map(), records: new Map() };

/** Open the history; returns why nothing is kept, or "". */
export async function open() {
  try {
    database = await new Promise((resolve, reject) => {
      const request = indexedDB.open(NAME, 1);
      request.onupgradeneeded = () => {
        for (const store of STORES) request.result.createObjectStore(store, { keyPath: "id" });
      };
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
      request.onblocked = () => reject(new Error("another tab holds an older version"));
    });
    database.onversionchange = () => database.close();
    return "";
  } catch (error) {
    database = null;
    return `This browser keeps no history (${error?.message ?? error}); it lasts until the tab is closed.`;
  }
}

function request(stores, mode, make) {
  return new Promise((resolve, reject) => {
    const transaction = database.transaction(stores, mode);
    const result = make(transaction);
    transaction.oncomplete = () => resolve(result?.result);
    transaction.onabort = transaction.onerror = () => reject(transaction.error ?? new Error("the browser refused"));
  });
}

/** Keep one turn, by itself: what other tabs write stays. Returns why it could not be kept, or "". */
export async function keep(entry, record) {
  memory.entries.set(entry.id, entry);
  if (!database) {
    memory.records.set(entry.id, { id: entry.id, record });
    return "";
  }
  try {
    await request(STORES, "readwrite", (t) => {
      t.objectStore("entries").put(entry);
      t.objectStore("records").put({ id: entry.id, record });
    });
    return "";
  } catch (error) {
    memory.records.set(entry.id, { id: entry.id, record });
    const full = error?.name === "QuotaExceededError";
    return full
      ? "The browser has no room left for the history: export it and clear it. This answer is kept until the tab is closed."
      : `This answer could not be kept (${error?.message ?? error}).`;
  }
}

/** All entries, newest first. */
export async function entries() {
  const kept = database ? await request(["entries"], "readonly", (t) => t.objectStore("entries").getAll()) : [];
  const all = new Map(kept.map((entry) => [entry.id, entry]));
  for (const [id, entry] of memory.entries) if (!all.has(id) && memory.records.has(id)) all.set(id, entry);
  return [...all.values()].sort((a, b) => b.at - a.at);
}

export async function recordOf(id) {
  if (memory.records.has(id)) return memory.records.get(id).record;
  const found = database && (await request(["records"], "readonly", (t) => t.objectStore("records").get(id)));
  return found?.record ?? null;
}

export async function forget(ids) {
  for (const id of ids) for (const store of STORES) memory[store].delete(id);
  if (!database) return;
  await request(STORES, "readwrite", (t) => {
    for (const id of ids) for (const store of STORES) t.objectStore(store).delete(id);
  });
}

/** Every record as JSON Lines, oldest first: what the shell's tools read. */
export async function exportAll(list) {
  const parts = [];
  for (const entry of [...list].reverse()) {
    const record = await recordOf(entry.id);
    if (record) parts.push(`${JSON.stringify(record)}\n`);
  }
  return new Blob(parts, { type: "application/x-ndjson" });
}

/** What of a turn is looked through. */
export function entryOf(turn, answer) {
  return {
    id: turn.id, thread: turn.thread, of: turn.of, at: turn.at, title: turn.question.slice(0, 200), recipe: turn.recipe, over: turn.over,
    chain: turn.chain, status: turn.status, cost: turn.cost, seconds: turn.seconds,
    words: `${turn.question} ${answer}`.slice(0, 2000).toLowerCase(),
  };
}

/** The entries that have all words of a query. */
export function search(list, query) {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  return words.length ? list.filter((entry) => words.every((word) => entry.words.includes(word))) : list;
}
