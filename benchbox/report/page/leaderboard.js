"use strict";
// Tabs, filters, the opened row, downloads. Sorting and searching are DataTables'. What is seen is in the address:
// #tab=…&sort=KEY-asc&q=…&kind=…&access=…&row=…&theme=…
(() => {
  const $ = (selector, within = document) => within.querySelector(selector);
  const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];
  const panels = $$("[role=tabpanel]"), tabs = $$("[role=tab]");
  const dialog = $("#drill"), search = $("#search"), kind = $("#kind"), access = $("#access");
  const made = new Map();
  let state = read(), writing = false;

  function read() { return new URLSearchParams(location.hash.slice(1)); }

  function write(changes, push = false) {
    for (const [key, value] of Object.entries(changes)) value ? state.set(key, value) : state.delete(key);
    const address = "#" + state;
    if (address !== location.hash) history[push ? "pushState" : "replaceState"](null, "", address);
  }

  // --- the table of a tab, made when it is first seen ---

  function table(panel) {
    if (!made.has(panel)) {
      const heads = $$("thead th", panel);
      made.set(panel, { heads, keys: heads.map((th) => th.dataset.key), api: new DataTable($("table", panel), {
        paging: false, info: false, autoWidth: false, order: [[0, "asc"]],
        layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null },
        language: { zeroRecords: "No defence fits. Clear the search or the filters." },
        columns: heads.map((th) => ({
          searchable: "searched" in th.dataset,
          orderSequence: "words" in th.dataset || th.dataset.key === "rank" ? ["asc", "desc"] : ["desc", "asc"],
        })),
      }) });
      const { api, keys } = made.get(panel);
      api.search.fixed("filters", (text, data, index) => {
        const row = api.row(index).node().dataset;
        return (!kind.value || JSON.parse(row.kinds).includes(kind.value))
          && (!access.value || JSON.parse(row.accesses).includes(access.value));
      });
      api.on("order", () => {
        if (writing) return;
        const [column, direction] = api.order()[0] || [0, "asc"];
        write({ sort: column === 0 && direction === "asc" ? "" : `${keys[column]}-${direction}` });
      });
      $("tbody", panel).addEventListener("click", (event) => {
        const row = event.target.closest("tr[data-id]");
        if (row && !String(getSelection())) open(row.dataset.id, true);
      });
    }
    return made.get(panel);
  }

  const shown = () => panels.find((panel) => !panel.hidden);

  function options(select, values) {
    while (select.options.length > 1) select.remove(1);
    for (const value of values) select.add(new Option(value, value));
  }

  // --- from the address to what is seen ---

  function apply() {
    writing = true;
    const theme = state.get("theme");
    theme ? document.documentElement.dataset.theme = theme : delete document.documentElement.dataset.theme;
    const panel = panels.find((one) => one.id === state.get("tab")) || panels[0];
    if (panel) {
      for (const one of panels) one.hidden = one !== panel;
      for (const tab of tabs) {
        const own = tab.getAttribute("aria-controls") === panel.id;
        tab.setAttribute("aria-selected", own);
        tab.tabIndex = own ? 0 : -1;
      }
      options(kind, JSON.parse(panel.dataset.kinds));
      options(access, JSON.parse(panel.dataset.accesses));
      search.value = state.get("q") || "";
      kind.value = state.get("kind") || "";
      access.value = state.get("access") || "";
      if (kind.selectedIndex < 0) kind.value = "";
      if (access.selectedIndex < 0) access.value = "";
      const { api, heads, keys } = table(panel);
      $("table", panel).dataset.of = access.value;
      const [, key, direction] = /^(.*)-(asc|desc)$/.exec(state.get("sort") || "") || [];
      api.order([Math.max(0, keys.indexOf(key)), keys.includes(key) ? direction : "asc"]);
      api.search(search.value).draw();
      const found = api.rows({ search: "applied" }).count(), all = api.rows().count();
      $("#count").textContent = `${found} of ${all} defences`;
      show(state.get("row"));
    }
    writing = false;
  }

  function show(id) {
    const template = id && $$("template[data-row]", shown()).find((one) => one.dataset.row === id);
    if (!template) { if (dialog.open) dialog.close(); return; }
    $("#drilled").replaceChildren(template.content.cloneNode(true));
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
  }

  function open(id, push) { write({ row: id }, push); show(id); }

  // --- what the reader does ---

  function choose(tab) {
    write({ tab: tab.getAttribute("aria-controls"), row: "", sort: "", kind: "", access: "" }, true);
    apply();
    tab.focus();
  }
  tabs.forEach((tab, i) => {
    tab.addEventListener("click", () => choose(tab));
    tab.addEventListener("keydown", (event) => {
      const to = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: tabs.length - 1 }[event.key];
      if (to !== undefined) { event.preventDefault(); choose(tabs[(to + tabs.length) % tabs.length]); }
    });
  });
  $("#controls")?.addEventListener("submit", (event) => event.preventDefault());
  search?.addEventListener("input", () => { write({ q: search.value }); apply(); });
  kind?.addEventListener("change", () => { write({ kind: kind.value }); apply(); });
  access?.addEventListener("change", () => { write({ access: access.value, sort: "" }); apply(); });
  dialog.addEventListener("close", () => {
    const row = $$("tr[data-id]", shown()).find((one) => one.dataset.id === state.get("row"));
    write({ row: "" });
    if (row) $(".open", row)?.focus();
  });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  $("#theme").addEventListener("click", () => {
    const dark = state.get("theme") ? state.get("theme") === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    write({ theme: dark ? "light" : "dark" });
    apply();
  });
  addEventListener("popstate", () => { state = read(); apply(); });

  // --- downloads: the rows and columns that are seen, in their order ---

  const wanted = ({ classList, dataset }) =>
    !dataset.access || (classList.contains("attack") ? dataset.access === access.value : !access.value || dataset.access === access.value);

  function seen() {
    const { api, heads } = table(shown());
    const columns = [...heads.keys()].filter((i) => wanted(heads[i]));
    const rows = api.rows({ search: "applied", order: "applied" }).indexes().toArray();
    const number = (text) => (text === undefined || text === "" || isNaN(text) ? null : Number(text));
    return { heads: columns.map((i) => heads[i]), rows: rows.map((r) => columns.map((i) => {
      const cell = api.cell(r, i).node(), text = $(".open, .badge, .value", cell).textContent.trim();
      return { text, tex: cell.dataset.tex || text, low: number(cell.dataset.low), high: number(cell.dataset.high),
        value: "low" in cell.dataset || "claim" === heads[i].dataset.key ? number(cell.dataset.order) : text };
    })) };
  }
  const named = (th) => [th.dataset.access, th.dataset.key].filter((x, i, all) => x && !all[1]?.includes(all[0])).join(" ") || th.dataset.key;
  const ranged = (th) => "access" in th.dataset || ["clean", "robust"].includes(th.dataset.key);
  const formats = {
    csv({ heads, rows }) {
      // Text that a spreadsheet would take for a formula begins with an apostrophe, as in `report --format csv`.
      const harmless = (value) => (typeof value === "string" && /^\s*[=+\-@\uff1d\uff0b\uff0d\uff20]/.test(value) && isNaN(value) ? `'${value}` : value ?? "");
      const quoted = (value) => (/[",\n\r]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : value);
      const names = heads.flatMap((th) => (ranged(th) ? ["", " low", " high"] : [""]).map((end) => named(th) + end));
      const lines = rows.map((row) => row.flatMap((one, i) => (ranged(heads[i]) ? [one.value, one.low, one.high] : [one.value])));
      return [names, ...lines].map((line) => line.map(harmless).map(quoted).join(",")).join("\n") + "\n";
    },
    json({ heads, rows }) {
      const record = (row) => Object.fromEntries(row.map((one, i) => [named(heads[i]), ranged(heads[i]) ? one : one.value]));
      const plain = (row) => Object.fromEntries(Object.entries(record(row)).map(([key, one]) => [key,
        one !== null && typeof one === "object" ? { text: one.text, percent: one.low === null ? null : one.value, low: one.low, high: one.high } : one]));
      return JSON.stringify({ table: $("caption", shown()).textContent, rows: rows.map(plain) }, null, 2) + "\n";
    },
    tex({ heads, rows }) {
      const title = (th) => [th.dataset.access, th.dataset.tex || th.dataset.title || th.textContent.trim().replace(th.dataset.access || "", "").trim()].filter(Boolean).join(" ");
      const align = heads.map((th) => ("words" in th.dataset ? "l" : "r")).join("");
      return [`\\begin{tabular}{${align}}`, "\\toprule", heads.map(title).join(" & ") + " \\\\", "\\midrule",
        ...rows.map((row) => row.map((one) => one.tex).join(" & ") + " \\\\"), "\\bottomrule", "\\end{tabular}", ""].join("\n");
    },
  };
  for (const button of $$("[data-download]")) button.addEventListener("click", () => {
    const kind = button.dataset.download, link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([formats[kind](seen())], { type: "text/plain" }));
    link.download = `leaderboard-${shown().id}.${kind}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });

  apply();
})();
