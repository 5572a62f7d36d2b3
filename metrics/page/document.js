// What both the page and its charts need of the document.

export const byId = (id) => document.getElementById(id);
export const clock = (time, options) => new Date(time * 1000).toLocaleString("en-GB", options);
export const MINUTE = {hour: "2-digit", minute: "2-digit", hourCycle: "h23"};
export const DAY = {day: "numeric", month: "short"};
export const MOMENT = {...DAY, ...MINUTE};

/** Return a new element with properties and children. */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** Fill an element with sentences, each in a `tag` of its own; hide it when there are none. */
export function say(id, tag, sentences) {
  byId(id).replaceChildren(...sentences.map((textContent) => element(tag, {textContent})));
  byId(id).hidden = !sentences.length;
}
