// Where the model looked: asked for only when somebody wants to see it.
import { upload } from "./api.js";
import { byId } from "./elements.js";
import { describeAttention } from "./overlay.js";
import { inTurn } from "./pacing.js";

const TOO_OLD = "This service gives no attention: it needs one that has /explain, and a model exported with --explain.";

const isTooOld = problem => [404, 405].includes(problem.status);

/** Make sure that the attention for the answer shown is known, if it is wanted; returns what is to be said of it. */
export const learnAttention = async (picture, query, signal) => {
  if (!byId("show-attention").checked) return "";
  const grid = String(picture.result.grid);
  try {
    if (!picture.attention.has(grid)) await ask(picture, query, signal);
    return picture.attention.has(grid) ? describeAttention(picture.attention.get(grid)) : "";
  } catch (problem) {
    if (signal.aborted) return "";
    byId("show-attention").checked = false;
    return isTooOld(problem) ? TOO_OLD : problem.detail;
  }
};

const ask = async (picture, query, signal) => {
  const { results: [result] } = await inTurn(() => upload("explain", picture.file, query, signal));
  picture.attention.set(String(result.grid), result.attention);
};
