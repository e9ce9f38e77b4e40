// The images of a cell, cut out of its strip and drawn on canvases.

const LOADED = new Map();
const GAINS = ["1", "2", "4", "8"];

/** Return a promise of a cell's images as pixels; a strip is decoded once. */
function pixelsOf(cell) {
  if (!LOADED.has(cell)) LOADED.set(cell, decode(cell.strip));
  return LOADED.get(cell);
}

async function decode(strip) {
  const image = new Image();
  image.src = `data:image/png;base64,${strip.png}`;
  await image.decode();
  const canvas = el("canvas", { width: strip.width * strip.count, height: strip.height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return Array.from({ length: strip.count }, (_, nth) =>
    context.getImageData(nth * strip.width, 0, strip.width, strip.height)
  );
}

/** Return a picture of one sample of a cell. */
function imageTile(cell, sample, description) {
  return tile(cell.strip, description, async (context) => {
    const pixels = await pixelsOf(cell);
    if (pixels[sample]) context.putImageData(pixels[sample], 0, 0);
  });
}

/** Return a picture of what a sample differs in from the one of the same noise in full precision; grey is the same. */
function differenceTile(cell, full, sample, gain, description) {
  return tile(cell.strip, description, async (context) => {
    const [mine, theirs] = await Promise.all([pixelsOf(cell), pixelsOf(full)]);
    const [one, other] = [mine[sample], theirs[sample]];
    if (!one || !other || one.data.length !== other.data.length) return;
    const made = context.createImageData(one.width, one.height);
    for (let place = 0; place < made.data.length; place += 1) {
      made.data[place] = place % 4 === 3 ? 255 : 127.5 + gain * 0.5 * (one.data[place] - other.data[place]);
    }
    context.putImageData(made, 0, 0);
  });
}

function tile(strip, description, draw) {
  const canvas = el("canvas", {
    class: "tile",
    width: strip.width,
    height: strip.height,
    role: "img",
    "aria-label": description,
  });
  draw(canvas.getContext("2d")).catch(() => canvas.classList.add("broken"));
  return canvas;
}

/** Return the full-precision cell whose images a cell's are compared with; null if it has none to show. */
function fullOf(cell) {
  const full = cell.suite.cells.find((each) => each.full && each.workload === cell.workload && each.seed === cell.seed);
  return full?.strip ? full : null;
}

const captionOf = (cell, sample) => pooled(cell.strip.captions)[sample] || "";
