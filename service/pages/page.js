// The page: what happens when.
import { showAnswer, showOverlay, startStage } from "./answer.js";
import { Problem, upload, useKey } from "./api.js";
import { learnAttention } from "./attention.js";
import { startBudget } from "./budget.js";
import { byId } from "./elements.js";
import { showExamples, startGifts } from "./gifts.js";
import { readModel } from "./model.js";
import { inTurn, showWaits } from "./pacing.js";
import { closePicture, markChosen, openPicture, resetPicture, showCard, showTally, tallyOf } from "./pictures.js";
import { startTheme } from "./theme.js";

let model = null;
let chosen = null;
let pictures = [];
let leaving = new AbortController(); // of the questions under way

const notify = words => {
  byId("notice").textContent = words;
  byId("notice").hidden = words === "";
};

// --- the model ---
const learnModel = async () => {
  model = await inTurn(() => readModel(byId("models").value));
  showExamples(model.name);
  byId("locked").hidden = true;
  const classes = model.manifest.labels.length;
  for (const option of byId("k").options) option.disabled = Number(option.value) > Math.max(1, classes);
};

const unlock = problem => {
  if (problem.status !== 401 || !byId("locked").hidden) return;
  byId("locked").hidden = false;
  byId("key").focus();
};

const greet = async () => {
  try {
    await learnModel();
    notify("");
  } catch (problem) {
    unlock(problem);
    if (problem.status !== 401 || byId("key").value !== "") notify(`${problem.title}. ${problem.detail}`);
  }
};

// --- one picture ---
const queryOf = picture => {
  const query = { model: model.name };
  const classes = model.manifest.labels.length;
  if (classes > 0) query.k = Math.min(Number(byId("k").value), classes);
  if (picture.budget !== null) query.max_patches = picture.budget;
  return query;
};

const request = async (picture, signal) => {
  const began = performance.now();
  const reply = await upload("classify", picture.file, queryOf(picture), signal);
  return { ...reply, roundTrip: performance.now() - began };
};

const note = (picture, { results: [result], timing_ms: timing, roundTrip }) => {
  Object.assign(picture, { result, timing, roundTrip, problem: null });
  picture.tries.set(result.patches, { ...result, inference: timing.inference });
};

const refresh = picture => {
  showCard(picture);
  showTally(pictures);
  if (picture !== chosen) return;
  showAnswer(picture, model);
  showOverlay(picture, model);
};

/** Ask for a picture at its budget; an answer that comes after a newer question is not shown. */
const classify = async picture => {
  const { signal } = leaving;
  const number = (picture.asked += 1);
  picture.isWaiting = true;
  refresh(picture);
  try {
    if (model === null) await learnModel();
    const reply = await inTurn(() => request(picture, signal));
    if (number === picture.asked) note(picture, reply);
  } catch (error) {
    if (signal.aborted) return;
    const problem = error instanceof Problem ? error : bug(error);
    if (number === picture.asked) picture.problem = problem;
    unlock(problem);
  }
  picture.isWaiting = number !== picture.asked;
  refresh(picture);
  if (picture === chosen) await explain();
};

const bug = error => {
  console.error(error);
  return new Problem({ title: "A mistake in this page", detail: "Load it again; the browser's console says more." });
};

const explain = async () => {
  const picture = chosen;
  const words = picture?.result ? await learnAttention(picture, queryOf(picture), leaving.signal) : "";
  if (picture !== chosen) return;
  byId("attention-words").textContent = words;
  showOverlay(picture, model);
};

// --- all pictures ---
const choose = picture => {
  chosen = picture;
  markChosen(pictures, chosen);
  showAnswer(chosen, model);
  explain();
  const isStacked = byId("answer").offsetTop > byId("give").offsetTop + 1;
  if (isStacked && picture) byId("answer").scrollIntoView({ block: "start" });
};

const take = files => {
  notify("");
  const added = files.map((file, index) => openPicture(file, file.name || `image ${pictures.length + index + 1}`, choose));
  pictures.push(...added);
  byId("pictures").append(...added.map(each => each.card));
  if (added.length > 0) choose(added[0]);
  classifyAll(added);
};

/** Ask for several, and say aloud how it went. */
const classifyAll = async asked => {
  await Promise.all(asked.map(classify));
  if (asked.every(each => pictures.includes(each))) byId("said").textContent = tallyOf(asked);
};

const leave = () => {
  leaving.abort();
  leaving = new AbortController();
};

const clear = () => {
  leave();
  pictures.forEach(closePicture);
  pictures = [];
  byId("pictures").replaceChildren();
  choose(null);
  showTally(pictures);
  byId("files").focus();
};

const changeModel = async () => {
  await greet();
  leave(); // answers of the other model
  pictures.forEach(resetPicture);
  classifyAll(pictures);
};

// --- what is pressed ---
const listen = () => {
  byId("clear").addEventListener("click", clear);
  byId("models").addEventListener("change", changeModel);
  byId("k").addEventListener("change", () => classify(chosen));
  byId("problem").addEventListener("click", event => { if (event.target.id === "again") classify(chosen); });
  for (const id of ["show-grid", "show-seen"]) byId(id).addEventListener("change", () => showOverlay(chosen, model));
  byId("show-attention").addEventListener("change", explain);
  byId("locked").addEventListener("submit", event => {
    event.preventDefault();
    openWithKey();
  });
};

const openWithKey = async () => {
  useKey(byId("key").value);
  await greet();
  if (byId("locked").hidden) classifyAll(pictures.filter(each => each.problem?.status === 401));
};

startTheme();
showWaits(notify);
startGifts(take, notify);
startBudget({ chosen: () => chosen, most: () => model.most, classify });
startStage(() => showOverlay(chosen, model));
listen();
greet();
