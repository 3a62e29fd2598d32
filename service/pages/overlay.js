// What is drawn over the chosen picture: its patches, where the attention went, and how small the model gets it.
import { byId, drawn, percent } from "./elements.js";
import { coverage } from "./geometry.js";

const lines = ({ left, top, width, height }, [rows, columns]) => {
  let path = "";
  for (let row = 0; row <= rows; row += 1) path += `M${left} ${top + row * height / rows}h${width}`;
  for (let column = 0; column <= columns; column += 1) path += `M${left + column * width / columns} ${top}v${height}`;
  return path;
};

/** Everything but the covered part, darkened: the model never gets it. */
const outside = (result, { left, top, width, height }) => drawn("path", {
  class: "outside",
  "fill-rule": "evenodd",
  d: `M0 0H${result.width}V${result.height}H0ZM${left} ${top}h${width}v${height}h${-width}Z`,
});

const shade = ({ left, top, width, height }) => drawn("rect", { class: "shade", x: left, y: top, width, height });

const cells = (box, attention) => {
  const most = Math.max(...attention.flat());
  const width = box.width / attention[0].length, height = box.height / attention.length;
  return attention.flatMap((row, down) => row.map((share, across) => drawn("rect", {
    class: "heat",
    x: box.left + across * width,
    y: box.top + down * height,
    width,
    height,
    "fill-opacity": (0.85 * share / most).toFixed(3),
  })));
};

/** Draw a result: { width, height, grid } of the reply, and attention if it is known. */
export const drawOverlay = (result, spec, attention) => {
  const box = coverage(result.width, result.height, result.grid, spec);
  const parts = attention ? [shade(box), ...cells(box, attention)] : [];
  if (byId("show-grid").checked) {
    const d = lines(box, result.grid);
    parts.push(outside(result, box), drawn("path", { class: "under", d }), drawn("path", { class: "line", d }));
  }
  byId("overlay").setAttribute("viewBox", `0 0 ${result.width} ${result.height}`);
  byId("overlay").replaceChildren(...parts);
  drawSeen(result, spec, box);
};

/** The picture at the size at which it becomes patches; the browser's resampling, which is not quite ours. */
const drawSeen = (result, spec, box) => {
  const canvas = byId("seen"), picture = byId("picture");
  canvas.hidden = !byId("show-seen").checked || picture.naturalWidth === 0;
  if (canvas.hidden) return;
  canvas.width = result.grid[1] * spec.patch_size;
  canvas.height = result.grid[0] * spec.patch_size;
  const brush = canvas.getContext("2d");
  brush.imageSmoothingQuality = "high";
  brush.drawImage(picture, box.left, box.top, box.width, box.height, 0, 0, canvas.width, canvas.height);
  Object.assign(canvas.style, {
    left: `${100 * box.left / result.width}%`,
    top: `${100 * box.top / result.height}%`,
    width: `${100 * box.width / result.width}%`,
    height: `${100 * box.height / result.height}%`,
  });
};

export const wipeOverlay = () => {
  byId("overlay").replaceChildren();
  byId("seen").hidden = true;
};

/** In words what the colours show. */
export const describeAttention = attention => {
  const all = attention.flatMap((row, down) => row.map((share, across) => ({ share, down, across })));
  const [first] = all.sort((one, other) => other.share - one.share);
  let half = 0;
  for (let sum = 0; sum < 0.5 && half < all.length; half += 1) sum += all[half].share;
  return `The stronger the colour, the more of the model's attention went there (attention rollout). Most of it, ${percent(first.share)}, `
    + `is on row ${first.down + 1}, column ${first.across + 1}; half of it is on ${half} of ${all.length} patches.`;
};
