// What the pages share: asking the server, and showing an image with its regions.
"use strict";

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Ask the server; a body is sent as JSON unless it is a file. */
export async function request(path, { method = "GET", body, signal } = {}) {
  const file = body instanceof Blob;
  let response;
  try {
    response = await fetch(path, {
      method,
      signal,
      keepalive: body !== undefined && !file, // written even if the page is closed meanwhile
      body: body === undefined || file ? body : JSON.stringify(body),
      headers: body === undefined || file ? {} : { "content-type": "application/json" },
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The server does not answer. Is hardmine serve still running?");
  }
  const answer = await response.json();
  if (!response.ok) throw new Refused(response.status, answer.error);
  return answer;
}

/** Make an element; a string child becomes text, never markup. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

// Another run of the server may show other images at the same addresses.
const run = document.querySelector('meta[name="run"]').content;
export const imageAddress = (row, size, of = "index") => `/images/${row}/${size}?of=${of}&run=${run}`;

const isWhole = ([left, top, right, bottom]) => left <= 0.005 && top <= 0.005 && right >= 0.995 && bottom >= 0.995;

/** A picture with its regions: the frame of the reports, filled from the server. */
export function shot(image, regions, { size = "small", doubt = false, aspect } = {}) {
  const shown = aspect ?? Math.min(Math.max(image.aspect, 0.62), 2.4);
  const frame = element("span", { class: "frame" });
  frame.style.aspectRatio = shown;
  const fit = element("span", { class: image.aspect < shown ? "fit tall" : "fit" });
  fit.style.aspectRatio = image.aspect;
  const picture = element("img", { alt: "", decoding: "async", src: imageAddress(image.row, size, image.of) });
  picture.addEventListener("error", () => fit.replaceWith(element("span", { class: "missing" }, "cannot be shown")));
  // The true shape: an index may not know it.
  picture.addEventListener("load", () => { fit.style.aspectRatio = picture.naturalWidth / picture.naturalHeight; });
  fit.append(picture);
  for (const { box, name } of regions) {
    if (isWhole(box)) continue;
    const mark = element("span", { class: doubt ? "mark doubt" : "mark match", title: name });
    const [left, top, right, bottom] = box.map((edge) => 100 * Math.min(Math.max(edge, 0), 1));
    Object.assign(mark.style, { left: `${left}%`, top: `${top}%`, width: `${right - left}%`, height: `${bottom - top}%` });
    fit.append(mark);
  }
  frame.append(fit);
  return frame;
}

/** A picture of a wall that opens large; `more` is said there besides the caption. */
export function tile(image, regions, caption, more, options = {}) {
  const open = () => enlarge(image, regions, ...caption.map((one) => one.cloneNode(true)), element("span", {}, more));
  const made = element("figure", { class: "tile" },
    element("button", { type: "button", class: "open", "aria-label": `Enlarge ${image.path}`, onclick: open }, shot(image, regions, options)),
    element("figcaption", {}, ...caption));
  made.style.setProperty("--ar", Math.min(Math.max(image.aspect, 0.62), 2.4));
  return made;
}

/** Show an image large, with what is said of it below. */
export function enlarge(image, regions, ...caption) {
  const zoom = document.querySelector("dialog.zoom");
  const aspect = image.aspect;
  zoom.style.setProperty("--ar", aspect);
  zoom.querySelector(".zoom-body").replaceChildren(shot(image, regions, { size: "large", aspect }), element("figcaption", {}, ...caption));
  zoom.showModal();
}

export const percent = (value) => (value === null ? "–" : `${(100 * value).toFixed(value < 0.1 ? 1 : 0)} %`);
export const fileName = (path) => path.slice(path.lastIndexOf("/") + 1);
export const counted = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
export const labelText = (image) => image.classes.map(({ name, count }) => (count > 1 ? `${name} × ${count}` : name)).join(", ") || (image.labelled ? "no labels" : "not labelled");

// On a telephone the list of pages is wider than the screen.
document.querySelector(".pages [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
