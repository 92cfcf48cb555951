// The one state of the page, and who is told when it changes. Views are functions of it; nothing else is kept.

export const state = {
  /** What the server says of itself: `{version, overrides, models, endpoints, page_keys}`; null until it has. */
  server: null,
  recipes: [],
  defaultRecipe: "",
  /** `loading`, `ready`, `locked` (it wants one of its keys), `offline`. */
  connection: "loading",
  /** Whether the server wants a key of its own. */
  locked: false,
  clearing: false,
  /** The draft of the next question. */
  draft: emptyDraft(),
  estimate: null,
  /** The conversation that is shown: turns, oldest first. */
  turns: [],
  thread: "",
  /** What the history holds, newest first, without the records. */
  entries: [],
  historyOpen: false,
  historyQuery: "",
  historyShown: 60,
  /** Why the history keeps nothing, where it cannot. */
  historyFault: "",
  report: null,
  keyEndpoint: "",
  helpOpen: false,
  endpointsOpen: false,
  notice: "",
};

export function emptyDraft() {
  return { text: "", system: "", recipe: "", chain: "", files: [], overrides: {}, optionsOpen: false };
}

const listeners = [];
let scheduled = false;

/** Change the state; what is seen follows with the next frame, however many changes there are before it. */
export function update(change) {
  change?.(state);
  if (scheduled) return;
  scheduled = true;
  // A hidden tab has no frames, and its answer is to be there when it is looked at.
  if (document.hidden) setTimeout(tell, 100);
  else requestAnimationFrame(tell);
}

function tell() {
  scheduled = false;
  for (const listener of listeners) listener(state);
}

/** Call a function with the state now and after each change. */
export function onChange(listener) {
  listeners.push(listener);
  listener(state);
}

/** Say something in passing, for a person. */
export function notify(words) {
  update((s) => (s.notice = words));
  clearTimeout(notify.timer);
  notify.timer = setTimeout(() => update((s) => (s.notice = "")), 6000);
}
