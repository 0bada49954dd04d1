// The wall of what the last round draws most, and why.
"use strict";
import { counted, element, enlarge, fileName, labelText, request, shot } from "./common.js";

const part = document.getElementById("draws");
const wall = document.getElementById("draws-wall");
const about = document.getElementById("draws-about");
const more = document.getElementById("draws-more");
const words = JSON.parse(part.dataset.words);
const LIMIT = 36;
let shown = 0;

function why(image) {
  const lines = image.reasons.map((one) => `${words[one.kind] ?? one.kind}: ${one.phrase} (+${one.boost.toFixed(2)})`);
  if (image.balance !== 1) lines.push(`balance × ${image.balance.toFixed(2)}`);
  if (image.density_ratio !== 1) lines.push(`validation misses objects in images like it ${image.density_ratio.toFixed(2)} times as often as training shows them`);
  return lines;
}

function tile(image) {
  const reasons = why(image);
  const regions = [];
  const aspect = Math.min(Math.max(image.aspect ?? 4 / 3, 0.62), 2.4);
  const caption = () => [element("span", { class: "score" }, `${image.draws.toFixed(2)} × an epoch`), element("span", { class: "name" }, reasons[0] ?? "answers no query")];
  const picture = image.row >= 0 ? shot(image, regions) : element("span", { class: "missing" }, "not in the index");
  const made = element("figure", { class: "tile" },
    element("button", { type: "button", class: "open", "aria-label": `Enlarge ${image.path ?? image.id}`, onclick: () => image.row >= 0 && enlarge(image, regions, ...caption(), element("span", {}, `${fileName(image.path)}: ${labelText(image)}. ${reasons.join("; ")}`)) }, picture),
    element("figcaption", { title: reasons.join("\n") }, ...caption()));
  made.style.setProperty("--ar", aspect);
  return made;
}

async function load() {
  const answer = await request(`/api/draws?offset=${shown}&limit=${LIMIT}`);
  if (answer.busy || answer.version === 0) { setTimeout(start, 1000); return; }
  if (answer.error) { about.textContent = answer.error; more.hidden = true; return; }
  if (shown === 0) wall.replaceChildren();
  wall.append(...answer.images.map(tile));
  shown += answer.images.length;
  about.textContent = `round ${answer.round}, ${counted(answer.total, "image")}, the most often drawn first`;
  more.hidden = shown >= answer.total;
}

function start() {
  shown = 0;
  load().catch((error) => { about.textContent = error.message; });
}
more.addEventListener("click", () => load());
document.addEventListener("renewed", () => setTimeout(start, 500));
start();
