// Conditions in which the detector fails, with images on both sides.
"use strict";
import { element, fileName, percent, request, tile } from "./common.js";

const by = (id) => document.getElementById(id);
const say = (message) => { by("problem").textContent = message; by("problem").hidden = !message; };
const KEPT = "Kept as a context";
let version = -1;

function wall(title, images, note) {
  if (!images.length) return "";
  const shown = images.map((image) => {
    const missed = image.missed.map((box) => ({ box, name: "missed" }));
    const count = missed.length ? [element("span", { class: "score" }, `${missed.length} missed`)] : [];
    return tile(image, missed, [...count, element("span", { class: "name" }, fileName(image.path))], image.path, { doubt: true });
  });
  return element("div", { class: "side" }, element("h3", {}, title, " ", element("span", { class: "soft" }, note)), element("div", { class: "wall" }, ...shown));
}

async function keep(one, button) {
  try {
    await request("/api/contexts", { method: "POST", body: { texts: [one.text] } });
    button.disabled = true;
    button.textContent = KEPT;
  } catch (error) { say(error.message); }
}

function section(one) {
  const facts = [`${percent(one.missed)} of ${one.num_objects.toLocaleString("en")} objects missed, usually ${percent(one.missed_usually)}`, `${percent(one.false)} of ${one.num_detections.toLocaleString("en")} detections false, usually ${percent(one.false_usually)}`];
  if (one.ap) facts.push(`AP ${percent(one.ap.inside)} on the ${one.ap.num_images.toLocaleString("en")} images that answer best, ${percent(one.ap.outside)} on the rest`);
  if (one.rounds.length) facts.push(`found in ${one.rounds.length.toLocaleString("en")} of the training's rounds, last in round ${one.rounds.at(-1)}`);
  const share = (value, where) => (value === null ? "" : `${percent(value)} of ${where} answer`);
  const button = element("button", { type: "button", class: "tool", disabled: one.kept, onclick: (event) => keep(one, event.currentTarget) }, one.kept ? KEPT : "Use as a context");
  return element("section", { class: "part" },
    element("div", { class: "part-head" }, element("h2", {}, one.text), element("span", { class: "soft" }, `p ${one.p < 1e-300 ? 0 : one.p.toExponential(0)}`), element("span", { class: "keep" }, element("a", { class: "tool", href: `/ask?text=${encodeURIComponent(one.phrase)}` }, "Ask"), button)),
    element("ul", { class: "soft" }, ...facts.map((fact) => element("li", {}, fact))),
    wall("Validation, most like it", one.inside, share(one.val_share, "the validation images")),
    wall("Validation, least like it", one.outside, ""),
    wall("Training, most like it", one.training, share(one.training_share, "the indexed images")));
}

async function load() {
  const answer = await request("/api/conditions");
  say(answer.error);
  if (!answer.busy && answer.version !== version) {
    version = answer.version;
    by("status").hidden = Boolean(answer.error) || answer.conditions.length > 0;
    by("status").textContent = "No condition was found in which more fails than elsewhere.";
    by("conditions").replaceChildren(...answer.conditions.map(section));
  }
}

async function watch() {
  if (!document.hidden) await load().catch((error) => say(error.message));
  setTimeout(watch, version < 1 ? 1000 : 3000);
}
watch();
