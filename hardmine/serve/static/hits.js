// A list of any length of which only what is in view exists: rows of equal tiles.
"use strict";
import { element, enlarge, fileName, labelText, request, shot } from "./common.js";

const CHUNK = 60; // hits a request
const KEPT = 50; // chunks, more than are in view
const GAP = 12;
const CAPTION = 44;
const MOST = 60000; // a browser's page cannot be much higher

export class HitList {
  /**
   * @param {HTMLElement} box Gets the tiles.
   * @param {(region: object) => void} onRegion Called with a region that is to be asked by.
   * @param {(error: Error) => void} onError
   */
  constructor(box, onRegion, onError) {
    Object.assign(this, { box, onRegion, onError, total: 0, path: "", chunks: new Map(), tiles: new Map(), pending: 0 });
    const draw = () => { this.waiting ??= requestAnimationFrame(() => { this.waiting = null; this.draw(); }); };
    addEventListener("scroll", draw, { passive: true });
    new ResizeObserver(draw).observe(box);
    box.addEventListener("keydown", (event) => this.move(event));
  }

  /** Show the hits of another answer or filter; resolves to their number. */
  async show(path) {
    this.path = path;
    this.chunks.clear();
    const first = await this.fetch(0);
    if (path !== this.path || !first) return null;
    this.total = Math.min(first.total, MOST);
    for (const tile of this.tiles.values()) tile.remove();
    this.tiles.clear();
    this.draw();
    return first.total;
  }

  fetch(chunk) {
    const { path } = this;
    if (!this.chunks.has(chunk)) {
      const answer = request(`${path}&offset=${chunk * CHUNK}&limit=${CHUNK}`);
      this.chunks.set(chunk, answer);
      this.pending++;
      answer.then((got) => {
        this.pending--;
        answer.got = got;
        this.draw();
      }, (error) => {
        this.pending--;
        if (path !== this.path) return;
        this.chunks.delete(chunk);
        this.onError(error);
      });
      while (this.chunks.size > KEPT) this.chunks.delete(this.chunks.keys().next().value);
    }
    return this.chunks.get(chunk).catch(() => null);
  }

  draw() {
    const width = this.box.clientWidth;
    const columns = Math.max(2, Math.floor((width + GAP) / 230));
    const side = (width - GAP * (columns - 1)) / columns;
    const height = Math.round(side * 0.75) + CAPTION;
    Object.assign(this, { columns, height });
    this.box.style.height = `${Math.ceil(this.total / columns) * (height + GAP)}px`;
    const top = -this.box.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor((top - innerHeight / 2) / (height + GAP))) * columns;
    const last = Math.min(this.total, Math.ceil((top + 1.5 * innerHeight) / (height + GAP)) * columns);
    for (const [place, tile] of this.tiles) {
      if (place < first || place >= last) { tile.remove(); this.tiles.delete(place); }
    }
    for (let place = first; place < last; place++) {
      const chunk = Math.floor(place / CHUNK);
      // Few at a time: when one comes, what is then in view is asked for, not what was scrolled past.
      if (this.pending < 2) this.fetch(chunk);
      const hit = this.chunks.get(chunk)?.got?.hits[place % CHUNK];
      let tile = this.tiles.get(place);
      if (hit && !tile) {
        tile = this.tile(hit, place);
        this.tiles.set(place, tile);
        // In the order of the list, for the keyboard and for screen readers.
        let after = null;
        for (let next = place + 1; next < last && !after; next++) after = this.tiles.get(next) ?? null;
        this.box.insertBefore(tile, after);
      }
      if (tile) {
        tile.style.width = `${side}px`;
        tile.style.transform = `translate(${(place % columns) * (side + GAP)}px, ${Math.floor(place / columns) * (height + GAP)}px)`;
      }
    }
  }

  tile(hit, place) {
    const score = () => element("span", { class: "score", title: "cosine similarity of the best region" }, hit.score.toFixed(3));
    const ask = () => this.onRegion({ row: hit.row, box: hit.regions[0].box });
    const open = () => enlarge(hit, hit.regions, score(), element("span", { class: "name" }, hit.path), element("span", {}, labelText(hit)), element("button", { type: "button", class: "tool", onclick: ask }, "Ask by this region"));
    const figure = element("figure", {},
      element("button", { type: "button", class: "open", "aria-label": `Enlarge ${hit.path}, score ${hit.score.toFixed(3)}`, onclick: open }, shot(hit, hit.regions, { aspect: 4 / 3 })),
      element("figcaption", {}, score(), element("span", { class: "name", title: hit.path }, fileName(hit.path)), element("button", { type: "button", class: "like", title: "Ask by this region", "aria-label": `Ask by the region of ${fileName(hit.path)}`, onclick: ask }, "≈"), element("span", { class: "labels", title: labelText(hit) }, labelText(hit))));
    return element("div", { class: "hit", role: "listitem", "aria-setsize": String(this.total), "aria-posinset": String(place + 1), "data-place": String(place) }, figure);
  }

  /** Arrow keys go to the neighbouring tile. */
  move(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: this.columns, ArrowUp: -this.columns }[event.key];
    if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
    const from = event.target.closest(".hit");
    const place = from ? Number(from.dataset.place) + step : 0;
    if (place < 0 || place >= this.total) return;
    event.preventDefault();
    const next = this.tiles.get(place);
    next?.querySelector(".open").focus({ preventScroll: true });
    next?.scrollIntoView({ block: "nearest" });
  }
}
