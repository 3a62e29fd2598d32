// The given pictures: what is known of each, and its card in the list.
import { byId, counted, element, percent } from "./elements.js";

/** A picture of which nothing is known yet; `choose` is called with it when its card is pressed. */
export const openPicture = (file, name, choose) => {
  const picture = {
    file,
    name,
    url: URL.createObjectURL(file),
    budget: null, // patches at most; null: as many as the model takes
    asked: 0, // requests begun, to tell the newest answer
    isWaiting: false,
    result: null,
    timing: null,
    problem: null,
    tries: new Map(), // by patches
    attention: new Map(), // by grid
  };
  picture.card = cardOf(picture, choose);
  showCard(picture);
  return picture;
};

export const closePicture = picture => URL.revokeObjectURL(picture.url);

/** Forget the answers, for another model gives others. */
export const resetPicture = picture => {
  Object.assign(picture, { budget: null, result: null, timing: null, problem: null });
  picture.tries.clear();
  picture.attention.clear();
};

const cardOf = (picture, choose) => {
  const thumbnail = element("img", { src: picture.url, alt: "", loading: "lazy", decoding: "async" });
  thumbnail.addEventListener("error", () => { thumbnail.hidden = true; });
  const button = element("button", { type: "button" }, thumbnail,
    element("span", { className: "name", textContent: picture.name }), element("span", { className: "state" }));
  button.addEventListener("click", () => choose(picture));
  return element("li", {}, button);
};

const stateOf = ({ isWaiting, problem, result }) => {
  if (isWaiting && !result) return "waiting";
  if (problem) return problem.title;
  return result ? bestOf(result) : "";
};

const bestOf = ({ predictions: [best] }) => (best ? `${best.label}, ${percent(best.score)}` : "no labels");

export const showCard = picture => {
  const button = picture.card.firstChild;
  button.querySelector(".state").textContent = stateOf(picture);
  button.classList.toggle("failed", Boolean(picture.problem));
  button.classList.toggle("waiting", picture.isWaiting && !picture.result);
};

export const markChosen = (pictures, chosen) => {
  for (const picture of pictures) picture.card.firstChild.setAttribute("aria-pressed", picture === chosen);
};

/** How far the list is. */
export const showTally = pictures => {
  byId("given").hidden = pictures.length === 0;
  byId("tally").textContent = wordsOf(pictures);
};

/** What is said aloud of some pictures when all of them are done. */
export const tallyOf = pictures =>
  pictures.length === 1 ? `${pictures[0].name}: ${stateOf(pictures[0])}` : wordsOf(pictures);

const wordsOf = pictures => {
  const answered = pictures.filter(each => each.result && !each.problem).length;
  const failed = pictures.filter(each => each.problem).length;
  const words = `${answered} of ${counted(pictures.length, "image", "images")} answered`;
  return failed > 0 ? `${words}, ${failed} failed` : words;
};
