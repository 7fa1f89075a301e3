"use strict";
// The server answers with the photograph and its 8-bit probabilities; the threshold is applied here.
const get = (id) => document.getElementById(id);
let map = null; // {pixels, width, height, answer, picture}: one byte per pixel

async function show(file) {
  get("error").textContent = "";
  get("drop").firstChild.data = `${file.name} …`;
  try {
    const reply = await fetch("/predict", {method: "POST", headers: {"X-Lesionseg": "photograph"}, body: file});
    const answer = await reply.json();
    if (!reply.ok) throw new Error(answer.error);
    const picture = await loaded(answer.picture), grey = await loaded(answer.probabilities);
    draw(get("probability"), grey);
    const data = get("probability").getContext("2d").getImageData(0, 0, grey.width, grey.height).data;
    map = {pixels: data.filter((_, index) => index % 4 === 0), width: grey.width, height: grey.height, answer, picture};
    get("threshold").value = Math.max(1, Math.ceil(answer.threshold * 255 - 1e-9));
    get("size").textContent = `${answer.width} × ${answer.height} pixels`;
    get("pixels").textContent = `${percent(answer.lesion_pixels / (answer.width * answer.height))}, ${answer.lesion_pixels} pixels`;
    get("undecided").textContent = percent(map.pixels.filter((p) => p > 0.25 * 255 && p < 0.75 * 255).length / map.pixels.length);
    get("result").hidden = false;
    outline();
  } catch (error) {
    map = null;
    get("result").hidden = true;
    get("error").textContent = `${file.name}: ${error.message}`;
  }
  get("drop").firstChild.data = "Drop a photograph here, or click to choose one";
}

function outline() {
  if (!map) return;
  const {pixels, width, height, picture} = map, level = Number(get("threshold").value);
  draw(get("outline"), picture, width, height);
  const context = get("outline").getContext("2d"), image = context.getImageData(0, 0, width, height);
  const lesion = (x, y) => x >= 0 && y >= 0 && x < width && y < height && pixels[y * width + x] >= level;
  let count = 0, sum = 0;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (!lesion(x, y)) continue;
      count++;
      sum += pixels[y * width + x];
      if (lesion(x - 2, y) && lesion(x + 2, y) && lesion(x, y - 2) && lesion(x, y + 2)) continue;
      image.data.set([0, 230, 255, 255], 4 * (y * width + x));
    }
  }
  context.putImageData(image, 0, 0);
  get("value").textContent = (level / 255).toFixed(2);
  get("share").textContent = percent(count / pixels.length);
  get("inside").textContent = count ? (sum / count / 255).toFixed(2) : "no lesion";
}

function draw(canvas, image, width = image.width, height = image.height) {
  [canvas.width, canvas.height] = [width, height];
  canvas.getContext("2d", {willReadFrequently: true}).drawImage(image, 0, 0, width, height);
}

async function loaded(address) {
  const image = new Image();
  image.src = address;
  await image.decode();
  return image;
}

const percent = (share) => `${(100 * share).toFixed(1)} % of the photograph`;

get("threshold").addEventListener("input", outline);
get("file").addEventListener("change", (event) => event.target.files[0] && show(event.target.files[0]));
addEventListener("dragover", (event) => { event.preventDefault(); get("drop").classList.add("over"); });
addEventListener("dragleave", () => get("drop").classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  get("drop").classList.remove("over");
  if (event.dataTransfer.files[0]) show(event.dataTransfer.files[0]);
});
