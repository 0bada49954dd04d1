// Shows a page's new content when the server has a newer version of it.
"use strict";
import { request } from "./common.js";

const holder = document.querySelector("[data-live]") ?? document.querySelector("main");
const name = holder.dataset.live ?? "classes";
let version = Number(holder.dataset.version ?? NaN);

async function look() {
  if (document.hidden) return;
  const now = await request(`/api/version?of=${name}`);
  if (Number.isNaN(version)) version = now.version;
  if (now.version === version || now.busy) return;
  const page = new DOMParser().parseFromString(await (await fetch(location.pathname)).text(), "text/html");
  const fresh = page.querySelector("[data-live]");
  if (holder.dataset.live === undefined || !fresh || page.querySelectorAll("script").length !== document.querySelectorAll("script").length) {
    location.reload();
    return;
  }
  version = now.version;
  const open = new Set([...holder.querySelectorAll("details[open] summary b")].map((one) => one.textContent));
  holder.replaceChildren(...fresh.childNodes);
  // What was open stays open, and the newest is open anyway.
  for (const details of holder.querySelectorAll("details")) {
    details.open ||= open.has(details.querySelector("summary b")?.textContent);
  }
  holder.dispatchEvent(new CustomEvent("renewed", { bubbles: true }));
}

async function watch() {
  try { await look(); } catch { /* the server has gone; the page stays as it is */ }
  setTimeout(watch, 2000);
}
watch();
