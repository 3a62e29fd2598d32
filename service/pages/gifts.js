// How images get to this page: chosen, dropped, pasted, or one of the examples.
import { byId } from "./elements.js";

/** Call `take` with a list of files for everything that is given, and `complain` with words if it holds no file. */
export const startGifts = (take, complain) => {
  byId("files").addEventListener("change", () => {
    take([...byId("files").files]);
    byId("files").value = ""; // or the same file could not be chosen twice
  });
  byId("files").addEventListener("keydown", event => {
    if (event.key !== "Enter") return; // not every browser opens its dialog at it
    event.preventDefault();
    byId("files").click();
  });
  startDrop(take, complain);
  document.addEventListener("paste", event => {
    if (event.target.matches?.("input[type=password]")) return;
    giveOrComplain(event.clipboardData, "clipboard", take, complain);
  });
  for (const button of byId("examples").querySelectorAll("button")) {
    button.addEventListener("click", () => giveExample(button.querySelector("img").src, take, complain));
  }
};

const giveOrComplain = (transfer, place, take, complain) => {
  const files = [...(transfer?.files ?? [])];
  if (files.length > 0) take(files);
  else complain(`There is no image file in the ${place}.`);
};

const startDrop = (take, complain) => {
  const over = isOver => document.body.classList.toggle("dropping", isOver);
  document.addEventListener("dragover", event => {
    event.preventDefault();
    over(true);
  });
  document.addEventListener("dragleave", event => { if (event.relatedTarget === null) over(false); });
  document.addEventListener("drop", event => {
    event.preventDefault();
    over(false);
    giveOrComplain(event.dataTransfer, "drop", take, complain);
  });
};

const giveExample = async (address, take, complain) => {
  try {
    const blob = await (await fetch(address)).blob();
    take([new File([blob], address.split("/").at(-1), { type: blob.type })]);
  } catch {
    complain("The service cannot be reached. Is it running, and are you online?");
  }
};

/** The examples belong to one model; for another they mean nothing. */
export const showExamples = name => { byId("examples").hidden = name !== byId("examples").dataset.model; };
