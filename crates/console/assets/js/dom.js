// The page as a function of the state: `h` describes an element, `paint` makes the document match with the fewest
// changes, so that focus, scroll and typed text stay. Text is always text: nothing here parses HTML.

const SVG = "http://www.w3.org/2000/svg";
/** Set as properties; everything else is an attribute. */
const PROPERTIES = new Set(["value", "checked", "disabled", "selected", "open"]);
/** What `paint` last put into an element. */
const painted = new WeakMap();

/**
 * @typedef {{tag?: string, text?: string, props?: object, children?: (Node|null)[], key?: string, element?: Element|Text}} Node
 */

/**
 * Describes an element. Children may be nested lists; `null`, `undefined` and `false` stand for nothing.
 * @param {string} tag @param {object|null} props @param {...*} children @returns {Node}
 */
export function h(tag, props, ...children) {
  return { tag, props: props ?? {}, children: nodes(children), key: props?.key };
}

/** What can have the focus. */
const REACHED = "a[href], button:not(:disabled), input:not(:disabled), select:not(:disabled), [tabindex]";

/** Makes the children of `parent` be these. */
export function paint(parent, ...children) {
  const after = nodes(children);
  const held = parent.contains(document.activeElement) ? within(document.activeElement, parent) : [];
  reconcile(parent, painted.get(parent) ?? [], after);
  painted.set(parent, after);
  if (held.length && !held[0].isConnected) focusNear(held);
}

/** The element and those that it is in, up to `parent`. */
const within = (element, parent) =>
  element === parent ? [parent] : [element, ...within(element.parentElement, parent)];

/** What had the focus is gone: whoever works by keyboard goes on beside it, unless everything is another. */
function focusNear(held) {
  const place = held.slice(0, -1).find((element) => element.isConnected);
  if (place) (place.querySelector(REACHED) ?? place).focus({ preventScroll: true });
}

const nodes = (children) =>
  children.flat(Infinity).map((child) => {
    if (child === null || child === undefined || child === false) return null;
    return typeof child === "object" ? child : { text: String(child) };
  });

const slot = (node, index) => (node.key === undefined ? index : `k${node.key}`);

function reconcile(parent, before, after) {
  const spare = new Map();
  before.forEach((node, index) => node && spare.set(slot(node, index), node));
  after.forEach((node, index) => {
    if (!node) return;
    const old = spare.get(slot(node, index));
    if (old && old.tag === node.tag) {
      spare.delete(slot(node, index));
      update(old, node);
    } else {
      create(node, parent);
    }
  });
  for (const node of spare.values()) node.element.remove();
  let cursor = parent.firstChild;
  for (const node of after) {
    if (!node) continue;
    if (node.element === cursor) cursor = cursor.nextSibling;
    else parent.insertBefore(node.element, cursor);
  }
}

function create(node, parent) {
  if (node.tag === undefined) {
    node.element = document.createTextNode(node.text);
    return;
  }
  const inSvg = node.tag === "svg" || (parent.namespaceURI === SVG && parent.tagName !== "foreignObject");
  node.element = inSvg ? document.createElementNS(SVG, node.tag) : document.createElement(node.tag);
  reconcile(node.element, [], node.children);
  for (const [name, value] of Object.entries(node.props)) set(node.element, name, value);
  node.props.ref?.(node.element);
}

function update(old, node) {
  if (old === node) return; // the same description: nothing can have changed
  node.element = old.element;
  if (node.tag === undefined) {
    if (node.text !== old.text) node.element.data = node.text;
    return;
  }
  reconcile(node.element, old.children, node.children);
  for (const name of Object.keys(old.props)) if (!(name in node.props)) set(node.element, name, null);
  for (const [name, value] of Object.entries(node.props)) {
    if (value !== old.props[name]) set(node.element, name, value);
  }
}

function set(element, name, value) {
  if (name === "key" || name === "ref") return;
  if (name.startsWith("on")) {
    element[name.toLowerCase()] = value;
  } else if (name === "style") {
    // Through the object model, which a strict content security policy allows.
    for (const [property, text] of Object.entries(value ?? {})) element.style.setProperty(property, text);
  } else if (PROPERTIES.has(name)) {
    element[name] = value ?? (typeof element[name] === "boolean" ? false : "");
  } else if (value === null || value === undefined || value === false) {
    element.removeAttribute(name);
  } else {
    element.setAttribute(name, value === true ? "" : value);
  }
}
