"use strict";

// Sorts, filters and chooses the columns of each table of cases. Without it the page is whole, but still.
document.documentElement.classList.add("scripted");

const UNITS = { ns: 1e-9, µs: 1e-6, us: 1e-6, ms: 1e-3, s: 1, "": 1 };

// What a filter's text asks of a cell: a bound, such as ">1.2" or "<=5ms", or a part of its text.
function condition(text) {
  const bound = /^([<>]=?)\s*(-?[\d.]+(?:e[-+]?\d+)?)\s*(ns|µs|us|ms|s|)$/i.exec(text.trim());
  if (!bound) {
    const part = text.trim().toLowerCase();
    return (cell) => cell.textContent.toLowerCase().includes(part);
  }
  const limit = Number(bound[2]) * UNITS[bound[3].toLowerCase()];
  const holds = {
    "<": (value) => value < limit,
    "<=": (value) => value <= limit,
    ">": (value) => value > limit,
    ">=": (value) => value >= limit,
  }[bound[1]];
  return (cell) => cell.dataset.value !== undefined && holds(Number(cell.dataset.value));
}

// Numbers by size, texts as people count, empty cells last whatever the direction.
function compare(one, other, direction) {
  const [left, right] = [one, other].map((cell) => cell.dataset.value ?? cell.textContent);
  if (left === "" || right === "") return (left === "") - (right === "");
  const numbers = [left, right].map(Number);
  const order = numbers.some(Number.isNaN)
    ? left.localeCompare(right, "en", { numeric: true })
    : numbers[0] - numbers[1];
  return order * direction;
}

function enliven(cases) {
  const body = cases.querySelector("tbody");
  const rows = [...body.rows];
  const headings = [...cases.querySelectorAll("th[scope=col]")];
  const filters = [...cases.querySelectorAll("[data-filter]")];

  function filter() {
    const wanted = filters
      .filter((field) => field.value.trim())
      .map((field) => [Number(field.dataset.filter), condition(field.value)]);
    for (const row of rows) {
      row.hidden = !wanted.every(([column, holds]) => holds(row.cells[column]));
    }
    const left = rows.filter((row) => !row.hidden).length;
    cases.querySelector("[data-count]").textContent = `${left} of ${rows.length} rows`;
  }

  function sort(column) {
    const heading = headings[column];
    const direction = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    headings.forEach((each) => each.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
    rows.sort((one, other) => compare(one.cells[column], other.cells[column], direction));
    body.append(...rows);
  }

  // A column that cannot be seen does not filter.
  function show(column, shown) {
    for (const row of cases.querySelectorAll("tr")) row.cells[column].hidden = !shown;
    if (!shown) filters[column].value = "";
    filter();
  }

  cases.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.sort) sort(Number(button.dataset.sort));
    if ("clear" in button.dataset) {
      filters.forEach((field) => { field.value = ""; });
      filter();
    }
  });
  filters.forEach((field) => field.addEventListener("input", filter));
  cases.addEventListener("change", (event) => {
    if (event.target.dataset.column) show(Number(event.target.dataset.column), event.target.checked);
  });
  filter();
}

document.querySelectorAll("[data-cases]").forEach(enliven);
