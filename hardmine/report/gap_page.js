"use strict";
(() => {
  const table = document.querySelector("table.gaps");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  const compare = (a, b) => {
    const [x, y] = [Number(a), Number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
  };
  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const order = before === "none" ? button.dataset.order : before === "ascending" ? "descending" : "ascending";
      heads.forEach((other) => other.hasAttribute("aria-sort") && other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const value = (row) => row.cells[column].dataset.value;
      // What is unknown stays last, whichever way the rest is sorted.
      body.append(...[...rows].sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        return x === "" || y === "" ? (x === "") - (y === "") : sign * compare(x, y);
      }));
    });
  });

  const filter = document.getElementById("filter");
  const kind = document.getElementById("kind");
  const count = document.getElementById("count");
  const show = () => {
    const word = filter.value.trim().toLowerCase();
    let shown = 0;
    for (const row of rows) {
      const fits = row.dataset.name.includes(word) && (!kind.value || row.dataset.kinds.split(" ").includes(kind.value));
      row.hidden = !fits;
      shown += fits;
    }
    count.textContent = shown === rows.length ? `${shown} classes` : `${shown} of ${rows.length} classes`;
  };
  filter.addEventListener("input", show);
  kind.addEventListener("change", show);

  // On paper everything is open.
  addEventListener("beforeprint", () => body.querySelectorAll("details").forEach((one) => { one.open = true; }));
})();
