"use strict";
(() => {
  const root = document.documentElement;
  const recall = (key) => { try { return localStorage.getItem(key); } catch { return null; } };
  const keep = (key, value) => { try { localStorage.setItem(key, value); } catch { /* a file may have no storage */ } };
  const theme = recall("hardmine-theme");
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;

  const zoom = document.querySelector("dialog.zoom");
  const actions = {
    theme() {
      const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
      root.dataset.theme = dark ? "light" : "dark";
      keep("hardmine-theme", root.dataset.theme);
    },
    marks(button) {
      const shown = document.body.classList.toggle("no-marks") === false;
      button.setAttribute("aria-pressed", String(shown));
    },
    zoom(button) {
      const tile = button.closest(".tile");
      const body = zoom.querySelector(".zoom-body");
      body.replaceChildren(button.firstElementChild.cloneNode(true), tile.querySelector("figcaption").cloneNode(true));
      zoom.style.setProperty("--ar", tile.style.getPropertyValue("--ar"));
      zoom.showModal();
    },
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-action]");
    if (button) actions[button.dataset.action]?.(button);
    else if (zoom.open && event.target.closest("dialog.zoom")) zoom.close();
  });
})();
