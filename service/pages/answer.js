// Everything about the chosen picture.
import { drawCurve } from "./curve.js";
import { byId, counted, duration, element, milliseconds, percent } from "./elements.js";
import { drawOverlay, wipeOverlay } from "./overlay.js";

const STAGES = {
  upload: "Upload",
  decode: "Decode",
  preprocess: "Resize and cut",
  queue: "Wait for the engine",
  inference: "Engine",
};

/** Show what is known of a picture; null: nothing is chosen. */
export const showAnswer = (picture, model) => {
  byId("chosen").textContent = picture?.name ?? "Answer";
  byId("nothing").hidden = picture !== null;
  byId("pending").hidden = picture === null || picture.result !== null || picture.problem !== null;
  byId("found").hidden = !picture?.result;
  showProblem(picture?.problem ?? null);
  if (!picture?.result) return;
  showPicture(picture);
  showBars(picture.result);
  showBudget(picture, model);
  showTiming(picture.timing, picture.roundTrip);
};

/** What is drawn over the picture, as the boxes are ticked. */
export const showOverlay = (picture, model) => {
  if (!picture?.result) return wipeOverlay();
  const attention = byId("show-attention").checked ? picture.attention.get(String(picture.result.grid)) : undefined;
  return drawOverlay(picture.result, model.spec, attention);
};

const showProblem = problem => {
  byId("problem").hidden = problem === null;
  if (problem === null) return;
  const again = problem.retryAfter > 0 ? ` It may be asked again in ${duration(problem.retryAfter)}.` : "";
  byId("problem").replaceChildren(
    element("p", {}, element("strong", { textContent: problem.title })),
    element("p", { textContent: problem.detail + again }),
    element("p", { className: "quiet", textContent: problem.small }),
    element("button", { id: "again", type: "button", textContent: "Try again", hidden: !problem.mayPass }),
  );
};

const showPicture = ({ url, name, result }) => {
  const image = byId("picture");
  if (image.src !== url) {
    byId("stage").classList.remove("unshown");
    Object.assign(image, { src: url, alt: name });
  }
  byId("stage").style.setProperty("--ratio", result.width / result.height);
  byId("stage").classList.toggle("tiny", result.width < 100);
  byId("grid-words").textContent = `${result.width}×${result.height} ${result.format}, cut into `
    + `${counted(result.grid[0], "row", "rows")} of ${counted(result.grid[1], "patch", "patches")}.`;
};

const showBars = ({ predictions, degraded }) => {
  byId("degraded").hidden = !degraded;
  const bars = predictions.map(barOf);
  byId("bars").replaceChildren(...(bars.length ? bars : [element("li", { textContent: "This model has no labels, only features." })]));
};

const barOf = ({ label, score }) => {
  const bar = element("div", { className: "bar", ariaHidden: "true" }, element("div"));
  bar.firstChild.style.width = `${100 * score}%`;
  return element("li", {},
    element("span", { className: "label", textContent: label }), element("span", { className: "score", textContent: percent(score) }), bar);
};

const showBudget = (picture, { most }) => {
  const { result, tries } = picture;
  const slider = byId("budget"), budget = picture.budget ?? most;
  slider.max = most;
  slider.value = budget;
  nameBudget(budget);
  byId("cost").textContent = costOf(result, budget, most, picture.timing.inference);
  drawCurve(tries, result, most);
};

export const nameBudget = budget => {
  byId("budget-words").textContent = counted(Number(budget), "patch", "patches");
  byId("budget").setAttribute("aria-valuetext", counted(Number(budget), "patch", "patches"));
};

const costOf = ({ patches, degraded, predictions: [best] }, budget, most, inference) => {
  const answer = best ? `: ${best.label}, ${percent(best.score)}` : "";
  const used = `${counted(patches, "patch", "patches")} in ${milliseconds(inference)} of the engine${answer}.`;
  return !degraded && patches < Math.min(budget, most) * 0.8 ? `${used} The image has no more.` : used;
};

const showTiming = (timing, roundTrip) => {
  const stages = Object.entries(STAGES).map(([name, words]) => [name, words, timing[name]]);
  byId("stages").replaceChildren(...stages.map(([name, , ms]) => {
    const part = element("div", { className: `stage-${name}` });
    part.style.flexGrow = ms;
    return part;
  }));
  const lines = [...stages, ["total", "Service in all", timing.total], ["trip", "As seen from here", roundTrip]];
  byId("timing").replaceChildren(...lines.flatMap(([name, words, ms]) => [
    element("dt", { className: `stage-${name}`, textContent: words }),
    element("dd", { textContent: milliseconds(ms) }),
  ]));
};

/** Pictures of kinds that the service reads and this browser does not show have a plain stage. */
export const startStage = redraw => {
  byId("picture").addEventListener("error", () => byId("stage").classList.add("unshown"));
  byId("picture").addEventListener("load", redraw);
};
