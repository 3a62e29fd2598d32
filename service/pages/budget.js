// The slider of patches: answers as it moves, and ten of them at the press of a button.
import { nameBudget } from "./answer.js";
import { byId } from "./elements.js";

const TRACED = 10;

/**
 * Args: functions that tell the chosen picture and the most patches that it may have, and one that classifies a
 * picture at its budget and shows the answer.
 */
export const startBudget = ({ chosen, most, classify }) => {
  const follow = follower(classify);
  let traced = null;

  const set = (picture, patches) => { picture.budget = patches < most() ? patches : null; };

  const move = () => {
    traced = null;
    set(chosen(), Number(byId("budget").value));
    nameBudget(byId("budget").value);
    follow(chosen());
  };

  const trace = async picture => {
    const before = picture.budget;
    for (let step = 1; step <= TRACED && traced === chosen() && picture.problem === null; step += 1) {
      set(picture, Math.max(1, Math.round(most() * step / TRACED)));
      await classify(picture);
    }
    if (traced !== picture) return; // the slider was moved meanwhile, and is right
    picture.budget = before;
    await classify(picture);
    traced = null;
  };

  byId("budget").addEventListener("input", move);
  byId("trace").addEventListener("click", async () => {
    if (traced !== null) return;
    traced = chosen();
    // Not disabled, or the keyboard would lose its place.
    byId("trace").setAttribute("aria-disabled", "true");
    await trace(traced);
    byId("trace").removeAttribute("aria-disabled");
  });
};

/** One request at a time, the next one for where the slider is by then. */
const follower = classify => {
  let isFollowing = false, wanted = null;
  return async picture => {
    wanted = picture;
    if (isFollowing) return;
    isFollowing = true;
    while (wanted !== null) {
      const next = wanted;
      wanted = null;
      await classify(next);
    }
    isFollowing = false;
  };
};
