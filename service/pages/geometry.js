// Which part of a picture its patches cover. As `model/preprocess.py` resizes and crops; tests/page compares the two.

const halfToEven = value => {
  const below = Math.floor(value);
  const rest = value - below;
  return rest > 0.5 || (rest === 0.5 && below % 2 === 1) ? below + 1 : below;
};

/** [width, height] of the whole resized picture, of which the centre is kept. */
const resized = (width, height, [rows, columns], spec) => {
  const wide = columns * spec.patch_size, high = rows * spec.patch_size;
  if (spec.resize_to === null) return [wide, high];
  const nativeShort = Math.min(...spec.native_grid) * spec.patch_size;
  if (spec.resize === "squash") {
    const scale = spec.resize_to / nativeShort;
    return [Math.max(wide, halfToEven(wide * scale)), Math.max(high, halfToEven(high * scale))];
  }
  const short = Math.max(Math.min(wide, high), halfToEven(spec.resize_to * Math.min(wide, high) / nativeShort));
  const long = Math.trunc(short * Math.max(width, height) / Math.min(width, height));
  const size = width <= height ? [short, long] : [long, short];
  const cover = Math.max(1, wide / size[0], high / size[1]);
  return [Math.max(wide, Math.trunc(size[0] * cover)), Math.max(high, Math.trunc(size[1] * cover))];
};

/** The covered part in pixels of the picture: { left, top, width, height }. */
export const coverage = (width, height, grid, spec) => {
  const wide = grid[1] * spec.patch_size, high = grid[0] * spec.patch_size;
  const [fullWide, fullHigh] = resized(width, height, grid, spec);
  const centre = spec.resize === "crop-floor" ? Math.floor : halfToEven;
  return {
    left: centre((fullWide - wide) / 2) * width / fullWide,
    top: centre((fullHigh - high) / 2) * height / fullHigh,
    width: wide * width / fullWide,
    height: high * height / fullHigh,
  };
};

/** The most patches that a picture can have with this model. */
export const mostPatches = spec =>
  spec.resize === "aspect" ? spec.max_patches : Math.min(spec.max_patches, spec.native_grid[0] * spec.native_grid[1]);
