// Suspects and confusers one by one, by keyboard.
"use strict";
import { counted, fileName, imageAddress, labelText, request, shot } from "./common.js";

const by = (id) => document.getElementById(id);
const KEYS = { 1: "missing", m: "missing", 2: "other", o: "other", 3: "skip", s: "skip", " ": "skip" };
let kind = "suspect";
let queue = [];
let total = 0; // open ones on the server when the queue was fetched
let done = []; // answers of this visit, to take back
let sending = Promise.resolve();

const say = (message) => { by("problem").textContent = message; by("problem").hidden = !message; };

async function load() {
  const wanted = kind;
  const answer = await request(`/api/checks?kind=${wanted}&decision=open&limit=50`);
  if (wanted !== kind) return;
  if (answer.busy && answer.version === 0) { setTimeout(() => load().catch((error) => say(error.message)), 1000); return; }
  if (answer.error) say(answer.error);
  queue = answer.checks;
  total = answer.total;
  for (const button of document.querySelectorAll("[data-kind]")) {
    button.querySelector("b").textContent = answer.num_open[button.dataset.kind]?.toLocaleString("en") ?? "";
  }
  const { missing = 0, other = 0, skip = 0 } = answer.counts;
  by("progress").textContent = `So far: ${counted(missing, "missing label")}, ${other} something else, ${skip} skipped.`;
  show();
}

function show() {
  const one = queue[0];
  by("check").hidden = !one;
  by("status").hidden = Boolean(one);
  by("status").textContent = kind === "suspect" ? "No label to check: none is suspected missing, or all are answered." : "Nothing left that only looks like a class.";
  if (!one) return;
  by("picture-frame").replaceChildren(shot(one, [{ box: one.box, name: one.class_name }], { size: "large", doubt: true, aspect: one.aspect }));
  by("picture-frame").style.setProperty("--ar", one.aspect);
  by("question").textContent = `Is there an unlabelled ${one.class_name}?`;
  by("facts").textContent = `${fileName(one.path)}. Labelled: ${labelText(one)}. Similarity ${one.score.toFixed(3)}; ${total.toLocaleString("en")} to check.`;
  if (queue[1]) new Image().src = imageAddress(queue[1].row, "large");
}

function send(one, decision) {
  const body = { image_id: one.id, class_name: one.class_name, decision };
  // One after the other: a quick second answer must not overtake the first.
  sending = sending.then(() => request("/api/checks", { method: "POST", body })).then(() => say(""), (error) => {
    say(`The last answer was not written: ${error.message}`);
    return load();
  });
  return sending;
}

async function decide(decision) {
  const one = queue.shift();
  if (!one) return;
  done.push(one);
  total -= 1;
  show();
  await send(one, decision);
  if (queue.length < 5) await load();
}

async function back() {
  const one = done.pop();
  if (!one) { say("There is no answer of this visit to take back."); return; }
  queue.unshift(one);
  total += 1;
  show();
  await send(one, "open");
}

document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || by("check")?.hidden !== false) return;
  if (event.key === " " && event.target.closest("button, a")) return; // the key presses what has focus
  const decision = KEYS[event.key.toLowerCase()];
  if (decision) decide(decision).catch((error) => say(error.message));
  else if (event.key === "ArrowLeft" || event.key === "Backspace") back().catch((error) => say(error.message));
  else return;
  event.preventDefault();
});
document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button?.dataset.decision) decide(button.dataset.decision).catch((error) => say(error.message));
  else if (button?.dataset.actionCheck) back().catch((error) => say(error.message));
  else if (button?.dataset.kind) {
    kind = button.dataset.kind;
    for (const other of document.querySelectorAll("[data-kind]")) other.setAttribute("aria-pressed", String(other === button));
    load().catch((error) => say(error.message));
  }
});
if (by("check")) load().catch((error) => say(error.message));
