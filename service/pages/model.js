// Which models there are, and the card of the one that answers.
import { ask } from "./api.js";
import { byId, counted, element, percent, row } from "./elements.js";
import { mostPatches } from "./geometry.js";

const nameOf = ({ name, version, newest }) => (newest ? name : `${name}@${version}`);

/** The chosen model as { name, manifest, spec, most }; a Problem is thrown if the service does not tell. */
export const readModel = async chosen => {
  const { models } = await ask("models");
  const summary = models.find(each => nameOf(each) === chosen) ?? models.find(each => each.default) ?? models[0];
  const name = nameOf(summary);
  const document = await ask(`models/${encodeURIComponent(name)}`);
  showChoice(models, name);
  showCard(document, summary);
  const spec = document.manifest.preprocessing;
  return { name, manifest: document.manifest, spec, most: mostPatches(spec) };
};

const showChoice = (models, chosen) => {
  const options = models.map(each =>
    element("option", { value: nameOf(each), textContent: `${each.name} ${each.version}`, selected: nameOf(each) === chosen }),
  );
  byId("models").replaceChildren(...options);
  byId("choice").hidden = models.length < 2;
};

const showCard = ({ manifest, digest, provider, brown_out }, { classes }) => {
  byId("served").textContent = `${manifest.name} ${manifest.version}, ${counted(classes, "class", "classes")}`;
  byId("described").textContent = manifest.description || "The publisher has not described this model.";
  byId("manifest").replaceChildren(...facts(manifest, digest, provider, brown_out).flatMap(([name, value]) => [
    element("dt", { textContent: name }),
    element("dd", { textContent: value }),
  ]));
  showAccuracy(manifest.accuracy);
  showLabels(manifest.labels);
};

const facts = (manifest, digest, provider, brownOut) => {
  const { patch_size: side, native_grid: grid, max_patches: most, resize } = manifest.preprocessing;
  const { source, licence } = manifest.provenance;
  return [
    ["Name and version", `${manifest.name} ${manifest.version}`],
    ["Patches", `${side}×${side} pixels, at most ${most} an image, trained on ${grid[0]}×${grid[1]}`],
    ["Resizing", RESIZES[resize] ?? resize],
    ["Precision", `${manifest.precision}, on ${provider}`],
    ["Under load", brownOut.length > 1 ? `${brownOut.map(step => step.max_patches).join(", then ")} patches` : "always all patches"],
    ["Weights from", source],
    ["Licence", licence || "not stated"],
    ["Digest", digest],
  ];
};

const RESIZES = {
  aspect: "keeps the shape of the image and never enlarges it",
  crop: "the shortest side to size, then the centre",
  "crop-floor": "the shortest side to size, then the centre",
  squash: "both sides to size, whatever the shape",
};

const showAccuracy = ({ dataset, curve }) => {
  byId("accuracy").hidden = curve.length === 0;
  byId("data-set").textContent = `On ${dataset}`;
  byId("accuracies").replaceChildren(...curve.map(([patches, top1]) => row(patches, percent(top1))));
};

const showLabels = labels => {
  byId("labels").hidden = labels.length === 0;
  byId("labels").querySelector("summary").textContent = counted(labels.length, "label", "labels");
  byId("labels").querySelector("p").textContent = labels.join(", ");
};
