// What to label next: chosen images of a pool, and what they are for.
"use strict";
import { counted, element, fileName, percent, request, tile } from "./common.js";

const by = (id) => document.getElementById(id);
const say = (message) => { by("problem").textContent = message; by("problem").hidden = !message; };
let asked = 0;

function line(wish) {
  const cell = (text) => element("td", { class: "num" }, text);
  return element("tr", {}, element("td", {}, wish.name, " ", wish.is_class ? "" : element("span", { class: "tag" }, "condition")), cell(wish.need.toFixed(2)), cell(wish.num_labelled.toLocaleString("en")), cell(wish.precision === null ? "" : percent(wish.precision)), cell(String(wish.num_chosen)), cell(wish.expected === null ? "not known" : wish.expected.toFixed(1)));
}

function picture(image) {
  const facts = `for ${image.wish}, fit ${image.fit.toFixed(2)}`;
  const like = image.closeness > 0 ? `; ${percent(image.closeness)} of the way from unlike to the same as one chosen before` : "";
  return tile(image, [{ box: image.box, name: image.wish }], [element("span", { class: "score" }, image.fit.toFixed(2)), element("span", { class: "name" }, image.wish)], `${fileName(image.path)}, ${facts}${like}`);
}

async function load() {
  const number = ++asked;
  const budget = by("budget").valueAsNumber;
  const answer = await request(`/api/collect?budget=${budget}`);
  if (number !== asked) return;
  say(answer.error);
  if (answer.busy && !answer.wishes.length) { setTimeout(() => number === asked && load().catch((error) => say(error.message)), 1000); return; }
  by("status").hidden = Boolean(answer.error) || answer.images.length > 0;
  by("status").textContent = "Nothing in the pool fits what is weak.";
  by("chosen").hidden = !answer.images.length;
  if (!answer.images.length) return;
  const known = answer.num_labelled ? `, ${answer.num_labelled.toLocaleString("en")} of which have labels and are left out` : "";
  by("about").textContent = `${counted(answer.images.length, "image")} of ${answer.num_pool.toLocaleString("en")}${known}, in the order to label them. Need is taken from ${answer.need_from}. Each is the likeliest for what it is wanted for, less the more it is like one chosen before.`;
  by("wishes").tBodies[0].replaceChildren(...answer.wishes.toSorted((one, other) => other.need - one.need).map(line));
  by("wall").replaceChildren(...answer.images.map(picture));
  for (const link of document.querySelectorAll("[data-format]")) link.href = `/api/collect/export?format=${link.dataset.format}&budget=${budget}`;
}

by("collect")?.addEventListener("submit", (event) => { event.preventDefault(); load().catch((error) => say(error.message)); });
if (by("collect")) load().catch((error) => say(error.message));
