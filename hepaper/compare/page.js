// The table of numbers can be filtered and ordered; without scripts it is simply long.
(function () {
  "use strict";
  const body = document.querySelector("#numbers tbody");
  if (!body) return;
  const rows = Array.from(body.rows);
  const wanted = document.getElementById("wanted");
  const order = document.getElementById("order");
  const count = document.getElementById("count");
  const show = () => {
    const words = wanted.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const key = row.cells[0].textContent.toLowerCase();
      row.hidden = !words.every((word) => key.includes(word));
      shown += row.hidden ? 0 : 1;
    }
    count.textContent = shown + " shown";
  };
  order.addEventListener("change", () => {
    const sorted = order.value === "size" ? rows : [...rows].sort((a, b) => a.dataset.order - b.dataset.order);
    body.append(...sorted);
  });
  wanted.addEventListener("input", show);
  document.getElementById("filters").hidden = false;
  show();
})();
