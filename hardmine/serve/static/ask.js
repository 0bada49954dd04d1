// Asks, shows the hits, filters them, and keeps questions.
"use strict";
import { counted, element, imageAddress, request } from "./common.js";
import { HitList } from "./hits.js";

const by = (id) => document.getElementById(id);
const form = by("ask");
const texts = by("texts");
const question = { regions: [], pictures: [] };
let answer = null;
let asked = 0; // so that a slow answer to an earlier question is not shown

const say = (message) => { by("problem").textContent = message; by("problem").hidden = !message; };
const list = new HitList(by("hits"), (region) => {
  document.querySelector("dialog.zoom").close();
  Object.assign(question, { regions: [region], pictures: [] });
  texts.value = "";
  scrollTo({ top: 0 });
  submit();
}, async (error) => {
  // The server keeps the last answers only.
  if (error.status === 404 && answer) await ask({ keep: true });
  else say(error.message);
});

const lines = (value) => value.split("\n").map((line) => line.trim()).filter(Boolean);
const current = () => ({
  texts: lines(texts.value),
  without: lines(by("without").value.replaceAll(";", "\n")),
  match: by("match").value,
  regions: question.regions,
  pictures: question.pictures,
});

function toAddress(one) {
  const words = new URLSearchParams();
  for (const text of one.texts) words.append("text", text);
  for (const text of one.without) words.append("not", text);
  if (one.match !== "any") words.set("match", one.match);
  for (const { row, box } of one.regions) words.append("region", [row, ...box].join(","));
  for (const key of one.pictures) words.append("picture", key);
  return `/ask?${words}`;
}

function fromAddress() {
  const words = new URLSearchParams(location.search);
  texts.value = words.getAll("text").join("\n");
  by("without").value = words.getAll("not").join("; ");
  by("match").value = words.get("match") === "all" ? "all" : "any";
  question.regions = words.getAll("region").map((one) => one.split(",").map(Number)).filter((one) => one.length === 5 && one.every(Number.isFinite)).map(([row, ...box]) => ({ row, box }));
  question.pictures = words.getAll("picture");
  resize();
  parts();
  if (texts.value || question.regions.length || question.pictures.length) ask({});
  else { by("answer").hidden = true; by("start").hidden = false; }
}

function resize() {
  const number = texts.value.split("\n").length;
  texts.rows = Math.min(number, 6);
  by("match-field").hidden = lines(texts.value).length + question.regions.length + question.pictures.length < 2;
}

function parts() {
  const chip = (kind, place, content) => element("span", { class: "chip" }, content, element("button", { type: "button", "aria-label": "Take out", onclick: () => { question[kind].splice(place, 1); parts(); submit(); } }, "×"));
  by("parts").replaceChildren(
    ...question.regions.map(({ row, box }, place) => {
      const picture = element("img", { src: imageAddress(row, "small"), alt: "region" });
      const [left, top, right, bottom] = box;
      Object.assign(picture.style, { objectViewBox: `inset(${100 * top}% ${100 - 100 * right}% ${100 - 100 * bottom}% ${100 * left}%)` });
      return chip("regions", place, picture);
    }),
    ...question.pictures.map((_, place) => chip("pictures", place, "your picture")));
  resize();
}

function submit() {
  parts();
  const address = toAddress(current());
  if (address !== location.pathname + location.search) history.pushState(null, "", address);
  ask({});
}

async function ask({ keep = false }) {
  const number = ++asked;
  const one = current();
  say("");
  by("answer").classList.add("busy");
  try {
    const got = await request("/api/questions", { method: "POST", body: one });
    if (number !== asked) return;
    answer = { ...got, question: one };
    by("start").hidden = true;
    by("answer").hidden = false;
    by("asked").textContent = one.texts.join(one.match === "all" ? " and " : " or ") || "Images like this";
    const plain = one.regions.length + one.pictures.length === 0;
    by("keep-slice").hidden = !plain;
    by("keep-context").hidden = !plain || one.without.length > 0;
    if (!keep) reach(got);
    await show();
    measure(number);
  } catch (error) {
    if (number === asked) say(error.message);
  } finally {
    if (number === asked) by("answer").classList.remove("busy");
  }
}

function reach({ lowest, highest }) {
  const slider = by("min-score");
  slider.min = lowest ?? 0;
  slider.max = highest ?? 1;
  slider.value = slider.min;
  by("min-score-text").textContent = "";
}

async function show() {
  const words = new URLSearchParams();
  if (by("class")?.value) words.set("class_name", by("class").value);
  // Choosing a class means images that have it.
  const labels = by("labels")?.value ?? "any";
  words.set("labels", labels);
  if (by("folder")?.value) words.set("folder", by("folder").value);
  const slider = by("min-score");
  if (slider.value > slider.min) words.set("min_score", Math.max(-1, Math.min(1, Number(slider.value))));
  const { key, num_found: found, seconds, highest } = answer;
  const total = await list.show(`/api/questions/${key}/hits?${words}`);
  if (total === null) return;
  const range = highest === null ? "" : `, best score ${highest.toFixed(3)}`;
  by("summary").textContent = `${total === found ? counted(found, "image") : `${total.toLocaleString("en")} of ${counted(found, "image")}`}${range}, found in ${Math.round(1000 * seconds)} ms`;
}

const percent = (value) => (value === null ? "–" : `${(100 * value).toFixed(1)} %`);
const points = (value) => `${value > 0 ? "+" : value < 0 ? "−" : ""}${Math.abs(100 * value).toFixed(1)}`;

async function measure(number) {
  const place = by("ap");
  if (!place) return;
  place.textContent = "Measuring AP where the detector meets this …";
  try {
    const ap = await request(`/api/questions/${answer.key}/ap`);
    if (number !== asked) return;
    if (ap.busy) { place.textContent = "The detections are being matched with the labels …"; setTimeout(() => number === asked && measure(number), 1000); return; }
    if (ap.error) { place.textContent = ap.error; return; }
    if (ap.gap === null) { place.textContent = "Too few objects to compare AP on the images that answer with the rest."; return; }
    const verdict = ap.p === null || ap.p >= 0.05 ? "May be chance." : ap.gap > 0 ? "Harder than the rest." : "Easier than the rest.";
    const classes = ap.classes.length <= 4 ? ap.classes.join(", ") : `mean of ${ap.classes.length} classes`;
    const value = (number, text) => element("div", { class: "value" }, element("b", {}, number), element("span", {}, text));
    const between = ap.low === null ? "" : `, 90 % interval ${points(-ap.high)} to ${points(-ap.low)}`;
    place.replaceChildren(
      value(percent(ap.ap_inside), `AP on the ${counted(ap.num_images, "validation image")} that answer best`),
      value(percent(ap.ap_outside), "AP on the rest"),
      value(`${points(-ap.gap)} points`, `difference${between}`),
      element("p", {}, element("span", { class: ap.p < 0.05 && ap.gap > 0 ? "tag warn" : "tag" }, verdict), ` ${classes}`));
  } catch (error) {
    if (number === asked) place.textContent = error.message;
  }
}

async function keep(what) {
  try {
    await request(`/api/${what}`, { method: "POST", body: answer.question });
    await kept();
  } catch (error) { say(error.message); }
}

async function kept() {
  const [{ slices }, { contexts, file }] = await Promise.all([request("/api/slices"), request("/api/contexts")]);
  const again = (one) => () => {
    Object.assign(question, { regions: [], pictures: [] });
    texts.value = one.texts.join("\n");
    by("without").value = (one.without ?? []).join("; ");
    by("match").value = one.match ?? "any";
    submit();
  };
  const drop = (path) => async () => {
    try { await request(path, { method: "DELETE" }); await kept(); } catch (error) { say(error.message); }
  };
  const chip = (text, one, path) => element("span", { class: "chip" }, element("button", { type: "button", class: "again", onclick: again(one) }, text), element("button", { type: "button", "aria-label": `Take out ${text}`, onclick: drop(path) }, "×"));
  const named = (one) => one.texts.join(one.match === "all" ? " and " : " or ") + (one.without.length ? `, not ${one.without.join(", ")}` : "");
  const groups = [];
  if (slices.length) groups.push(element("div", {}, element("span", { class: "faint" }, "Slices"), ...slices.map((one, place) => chip(named(one), one, `/api/slices/${place}`))));
  if (contexts.length) groups.push(element("div", {}, element("span", { class: "faint", title: `in ${file}` }, "Contexts for the miner"), ...contexts.map((text) => chip(text, { texts: [text] }, `/api/contexts?text=${encodeURIComponent(text)}`))));
  by("kept").replaceChildren(...groups);
  by("kept").hidden = !groups.length;
}

form.addEventListener("submit", (event) => { event.preventDefault(); submit(); });
texts.addEventListener("input", resize);
texts.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  submit();
});
by("picture").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  event.target.value = "";
  if (!file) return;
  if (file.size > 10 * 2 ** 20) { say("The picture is larger than 10 MB; make it smaller."); return; }
  try {
    const { key } = await request("/api/pictures", { method: "POST", body: file });
    Object.assign(question, { pictures: [key], regions: [] });
    texts.value = "";
    submit();
  } catch (error) { say(error.message); }
});
const refilter = () => answer && show().catch((error) => say(error.message));
by("class")?.addEventListener("change", () => {
  if (by("class").value && by("labels").value === "any") by("labels").value = "with";
  refilter();
});
by("labels")?.addEventListener("change", refilter);
by("folder")?.addEventListener("change", refilter);
let sliding = null;
by("min-score").addEventListener("input", () => {
  const { value, min } = by("min-score");
  by("min-score-text").textContent = value > min ? Number(value).toFixed(3) : "";
  clearTimeout(sliding);
  sliding = setTimeout(refilter, 120);
});
by("keep-slice").addEventListener("click", () => keep("slices"));
by("keep-context").addEventListener("click", () => keep("contexts"));
addEventListener("popstate", fromAddress);
kept().catch((error) => say(error.message));
fromAddress();
if (matchMedia("(pointer: fine)").matches) texts.focus();
