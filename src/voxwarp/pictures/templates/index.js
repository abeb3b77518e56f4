"use strict";
// A click on a column heading sorts the rows, a second click in reverse; blanks stay last.
const table = document.getElementById("results");
const heads = [...table.tHead.rows[0].cells];
const order = new Intl.Collator(undefined, { numeric: true });
heads.forEach((head, column) => {
  const button = head.querySelector("button");
  if (!button) return;
  button.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach(other => other.hasAttribute("aria-sort") && other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = row => row.cells[column].dataset.value;
    const compare = (a, b) => {
      if (a === "" || b === "") return (a === "") - (b === "");
      const numbers = [Number(a), Number(b)];
      const less = numbers.some(Number.isNaN) ? order.compare(a, b) : numbers[0] - numbers[1];
      return down ? -less : less;
    };
    const rows = [...table.tBodies[0].rows].sort((a, b) => compare(value(a), value(b)));
    table.tBodies[0].append(...rows);
  });
});
