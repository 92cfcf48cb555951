// A tree of plain objects, and the DOM made to look like it: views say what is to be seen, nodes that fit stay.

/**
 * Describe an element.
 * @param {string} tag
 * @param {object|null} props attributes; `on…` listeners; `style` an object; `key` finds it again among its siblings;
 *   `widget` a function (node, props) that keeps the inside of the node itself.
 * @param {...any} children descriptions, texts, lists of them; null and false say nothing.
 */
export function h(tag, props, ...children) {
  return { tag, props: props ?? {}, children: children.flat(Infinity).filter((c) => c != null && c !== false && c !== "") };
}

const AS_PROPERTY = new Set(["value", "checked", "disabled", "open", "selected", "hidden", "indeterminate"]);
const OURS = new Set(["key", "widget", "text", "done", "turn"]);
const SVG = "http://www.w3.org/2000/svg";
const IN_SVG = new Set(["svg", "rect", "line", "circle", "g"]);

/** Make the children of a node what a list of descriptions says. */
export function patch(parent, wanted) {
  const keyed = new Map();
  for (const node of parent.childNodes) if (node._key !== undefined) keyed.set(node._key, node);
  let at = parent.firstChild;
  const keys = new Set(wanted.map((item) => item.props?.key));
  for (const item of wanted) {
    // What goes is taken away before what stays would be moved: a node that is moved loses its focus and its place.
    while (at?._key !== undefined && !keys.has(at._key)) at = without(at);
    const key = item.props?.key;
    let node = key === undefined ? at : keyed.get(key);
    if (key !== undefined) keyed.delete(key);
    if (!fits(node, item)) node = make(item);
    if (node === at) at = at.nextSibling;
    else parent.insertBefore(node, at);
    update(node, item);
  }
  while (at) at = without(at);
}

/** Take a node away; returns the one behind it. */
function without(node) {
  const next = node.nextSibling;
  node.remove();
  return next;
}

function fits(node, item) {
  if (!node) return false;
  if (typeof item !== "object") return node.nodeType === Node.TEXT_NODE;
  return node._tag === item.tag && node._key === item.props.key;
}

function make(item) {
  if (typeof item !== "object") return document.createTextNode(String(item));
  const node = IN_SVG.has(item.tag)
    ? document.createElementNS(SVG, item.tag)
    : document.createElement(item.tag);
  node._tag = item.tag;
  node._key = item.props.key;
  node._props = {};
  return node;
}

function update(node, item) {
  if (typeof item !== "object") {
    if (node.data !== String(item)) node.data = String(item);
    return;
  }
  const before = node._props;
  for (const name of Object.keys(before)) if (!(name in item.props)) set(node, name, undefined, before[name]);
  if (!item.props.widget) patch(node, item.children);
  // After the children: a select takes its value only when the option is there.
  for (const [name, value] of Object.entries(item.props)) set(node, name, value, before[name]);
  node._props = item.props;
  item.props.widget?.(node, item.props);
}

function set(node, name, value, before) {
  if (OURS.has(name)) return;
  if (name.startsWith("on")) {
    if (before === undefined && value) node.addEventListener(name.slice(2), dispatch);
    return;
  }
  if (name === "style") {
    for (const [key, to] of Object.entries(value ?? {})) if (before?.[key] !== to) node.style.setProperty(key, to);
    return;
  }
  if (AS_PROPERTY.has(name)) {
    // What a person types meanwhile stays, unless the state says something else than before. Options come and go.
    if (value !== before || (node.tagName === "SELECT" && node[name] !== value)) node[name] = value ?? (name === "value" ? "" : false);
    return;
  }
  if (value === before) return;
  if (value == null || value === false) node.removeAttribute(name);
  else node.setAttribute(name, value === true ? "" : String(value));
}

function dispatch(event) {
  event.currentTarget._props[`on${event.type}`]?.(event);
}
