"use strict";
(() => {
  const root = document.documentElement;

  const store = {
    get: (key) => { try { return localStorage.getItem(key); } catch { return null; } },
    set: (key, value) => { try { localStorage.setItem(key, value); } catch { /* private window */ } },
  };
  const saved = store.get("lesionwise-theme");
  if (saved === "light" || saved === "dark") root.dataset.theme = saved;
  document.querySelector("[data-theme-switch]")?.addEventListener("click", () => {
    const dark = root.dataset.theme
      ? root.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    store.set("lesionwise-theme", root.dataset.theme);
  });
  document.querySelector("[data-print]")?.addEventListener("click", () => print());

  const valueOf = (row, column) => row.cells[column]?.dataset.value ?? row.cells[column]?.textContent ?? "";
  const compare = (a, b) => {
    if (a === "" || b === "") return a === b ? 0 : a === "" ? 1 : -1;
    const x = Number(a), y = Number(b);
    return Number.isNaN(x) || Number.isNaN(y)
      ? a.localeCompare(b, undefined, { numeric: true })
      : x - y;
  };

  const sort = (table, column, direction) => {
    const body = table.tBodies[0];
    const sign = direction === "descending" ? -1 : 1;
    const rows = [...body.rows].map((row, index) => ({ row, index, value: valueOf(row, column) }));
    rows.sort((a, b) => {
      const missing = (a.value === "") - (b.value === "");
      return missing || sign * compare(a.value, b.value) || a.index - b.index;
    });
    body.append(...rows.map(({ row }) => row));
    [...table.tHead.rows[0].cells].forEach((cell, at) => {
      if (at === column) cell.setAttribute("aria-sort", direction);
      else cell.removeAttribute("aria-sort");
    });
  };

  for (const table of document.querySelectorAll("table[data-sortable]")) {
    [...table.tHead.rows[0].cells].forEach((cell, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...cell.childNodes);
      cell.append(button);
      button.addEventListener("click", () => {
        const first = cell.classList.contains("number") ? "descending" : "ascending";
        const other = first === "descending" ? "ascending" : "descending";
        sort(table, column, cell.getAttribute("aria-sort") === first ? other : first);
      });
    });
  }

  for (const form of document.querySelectorAll("form[data-filters]")) {
    const table = document.getElementById(form.dataset.filters);
    const count = form.querySelector(".count");
    const apply = () => {
      const tests = [];
      for (const field of form.elements) {
        if (field.value === "" || !field.name) continue;
        const { name } = field, wanted = field.value;
        if (field.type === "number") tests.push((row) => Number(row.dataset[name]) >= Number(wanted));
        else if (field.type === "search") {
          const text = wanted.toLowerCase();
          tests.push((row) => row.textContent.toLowerCase().includes(text));
        } else tests.push((row) => row.dataset[name] === wanted);
      }
      let shown = 0;
      for (const row of table.tBodies[0].rows) {
        row.hidden = !tests.every((test) => test(row));
        shown += row.hidden ? 0 : 1;
      }
      if (count) count.textContent = `${shown} of ${table.tBodies[0].rows.length} rows`;
      table.dispatchEvent(new CustomEvent("filtered"));
    };
    form.addEventListener("input", apply);
    form.addEventListener("change", apply);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(apply));
    apply();
  }
})();
