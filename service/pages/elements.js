// Making and finding elements, and numbers in words.

export const byId = id => document.getElementById(id);

export const element = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};

/** An element of SVG with these attributes. */
export const drawn = (tag, attributes = {}, text = "") => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
};

export const row = (...cells) => element("tr", {}, ...cells.map(textContent => element("td", { textContent })));

// A number and its unit stay on one line.
export const percent = share => `${(100 * share).toFixed(1)}\u00a0%`;
export const milliseconds = ms => `${ms.toFixed(ms < 100 ? 1 : 0)}\u00a0ms`;
export const megabytes = bytes => `${(bytes / 1e6).toFixed(1)}\u00a0MB`;
export const counted = (count, one, many) => `${count} ${count === 1 ? one : many}`;

export const duration = seconds => {
  if (seconds < 120) return counted(Math.ceil(seconds), "second", "seconds");
  return seconds < 7200 ? `${Math.ceil(seconds / 60)} minutes` : `${Math.ceil(seconds / 3600)} hours`;
};
