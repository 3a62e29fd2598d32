// How much this page asks at a time, and when it asks again.
import { duration } from "./elements.js";

const AT_ONCE = 4;
const MOST_TRIES = 6;
const LONGEST_WAIT_S = 60;

let free = AT_ONCE;
const waiting = [];

const enter = () => new Promise(resolve => {
  waiting.push(resolve);
  admit();
});

const admit = () => {
  while (free > 0 && waiting.length > 0) {
    free -= 1;
    waiting.shift()();
  }
};

const leave = () => {
  free += 1;
  admit();
};

// All requests keep away from the service until the time that it gave one of them.
let heldUntil = 0;
let show = () => {};

/** Where the notice of a wait goes: a function of its words, empty when it is over. */
export const showWaits = shown => { show = shown; };

const sleep = ms => new Promise(resolve => setTimeout(resolve, ms));

const hold = problem => {
  heldUntil = Math.max(heldUntil, performance.now() + 1000 * Math.max(problem.retryAfter, 0.2));
  return problem.title;
};

const wait = async reason => {
  for (let left; (left = heldUntil - performance.now()) > 0;) {
    show(`${reason}. Trying again in ${duration(left / 1000)}.`);
    await sleep(Math.min(left, 1000));
  }
  show("");
};

const isWorthATry = problem => problem.retryAfter != null && problem.retryAfter <= LONGEST_WAIT_S;

const persist = async work => {
  let reason = "The service asked for time";
  for (let tries = 1; ; tries += 1) {
    await wait(reason);
    try {
      return await work();
    } catch (problem) {
      if (!isWorthATry(problem) || tries === MOST_TRIES) throw problem;
      reason = hold(problem);
    }
  }
};

/** Do some work with the service when it is its turn, again when the service says when; Problems are thrown. */
export const inTurn = async work => {
  await enter();
  try {
    return await persist(work);
  } finally {
    leave();
  }
};
