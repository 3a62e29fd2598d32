// The answers for one picture at several budgets: a drawing, and the same as a table.
import { byId, drawn, milliseconds, percent, row } from "./elements.js";

const LEFT = 48, TOP = 10, WIDTH = 260, HEIGHT = 105;

const across = (patches, most) => LEFT + WIDTH * patches / most;
const down = score => TOP + HEIGHT * (1 - score);

const frame = most => [
  ...[0, 0.5, 1].flatMap(score => [
    drawn("path", { class: "rule", d: `M${LEFT} ${down(score)}h${WIDTH}` }),
    drawn("text", { x: LEFT - 6, y: down(score) + 4, "text-anchor": "end" }, `${100 * score} %`),
  ]),
  ...[0, 0.5, 1].map(part =>
    drawn("text", { x: across(part * most, most), y: TOP + HEIGHT + 18, "text-anchor": "middle" }, Math.round(part * most)),
  ),
];

/** A disc where the answer is that of the most patches, a cross where it is another one. */
const mark = (x, y, isSame) =>
  isSame
    ? drawn("circle", { class: "same", cx: x, cy: y, r: 4 })
    : drawn("path", { class: "other", d: `M${x - 4} ${y - 4}l8 8m0 -8l-8 8` });

const byPatches = tries => [...tries.values()].sort((one, other) => one.patches - other.patches);

export const drawCurve = (tries, now, most) => {
  const known = byPatches(tries).filter(each => each.predictions.length > 0);
  byId("curve").replaceChildren();
  byId("tries").replaceChildren();
  if (known.length === 0) return;
  const best = known.at(-1).predictions[0].label;
  const points = known.map(each => [across(each.patches, most), down(each.predictions[0].score)]);
  const place = now.predictions.length > 0 ? [across(now.patches, most), down(now.predictions[0].score)] : points.at(-1);
  byId("curve").append(
    ...frame(most),
    drawn("path", { class: "trend", d: `M${points.map(point => point.join(" ")).join("L")}` }),
    ...known.map((each, index) => mark(...points[index], each.predictions[0].label === best)),
    drawn("circle", { class: "now", cx: place[0], cy: place[1], r: 8 }),
  );
  byId("curve-title").textContent = `Score of the first label against patches, ${known.length} tried. `
    + `Dots say ${best}, crosses say something else.`;
  byId("tries").append(...known.map(lineOf));
};

const lineOf = ({ patches, predictions: [{ label, score }], inference }) =>
  row(patches, label, percent(score), milliseconds(inference));
