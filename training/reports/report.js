"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const PAGE = 25;
  const SNIPPET = 200;
  const FLAGS = { u: "unfamiliar", k: "seen", t: "truncated", a: "abstained" };
  const at = (id) => document.getElementById(id);
  const state = { page: 0, order: "low", open: new Set() };
  // Texts of rows get onto the screen by textContent alone, here and nowhere else.
  const make = (tag, text, name) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (name) made.className = name;
    return made;
  };
  const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toPrecision(3);
  const option = (select, value, text) => {
    const made = make("option", text);
    made.value = value;
    select.append(made);
  };
  const keys = {
    high: ["best first", (row) => -row.v],
    low: ["worst first", (row) => row.v],
    doubt: ["least certain first", (row) => -row.d],
    input: ["as they came", (row) => row.n],
  };
  data.aspects.forEach((name, i) => {
    keys["e" + i] = [`lowest expected ${name} first`, (row) => row.e[i]];
    keys["E" + i] = [`highest expected ${name} first`, (row) => -row.e[i]];
  });
  data.labels.forEach((name, i) => {
    const place = data.aspects.indexOf(name);
    const far = (row) => (row.l[i] === null ? 1 : -Math.abs(row.l[i] - row.e[place]));
    keys["l" + i] = [`${name} farthest from its label first`, far];
  });
  for (const [key, [text]] of Object.entries(keys)) option(at("order"), key, text);
  option(at("flag"), "", "all rows");
  for (const [mark, name] of Object.entries(FLAGS)) {
    if (data.rows.some((row) => row.f.includes(mark))) {
      option(at("flag"), mark, `only ${name}`);
      option(at("flag"), "-" + mark, `not ${name}`);
    }
  }
  if (data.group !== null) {
    at("groupbox").hidden = false;
    at("groupname").textContent = data.group;
    option(at("group"), "", "all");
    const names = [...new Set(data.rows.map((row) => row.g))].sort(new Intl.Collator("en", { numeric: true }).compare);
    names.forEach((name, i) => option(at("group"), String(i), name));
    at("group").names = names;
    const place = new Map(names.map((name, i) => [name, i]));
    keys.g = [`by ${data.group}`, (row) => place.get(row.g)];
    option(at("order"), "g", keys.g[0]);
  }
  for (const row of data.rows) row.low = (data.questions[row.q] + "\n" + row.p).toLowerCase();

  // What was asked for stands before the aspects, which may be more than a screen is wide.
  const columns = [["row", "input"], [data.field, "high", "low"], ["question"], ["response"], ["flags"]];
  if (data.group !== null) columns.push([data.group, "g"]);
  data.labels.forEach((name, i) => columns.push([`${name} label`, "l" + i]));
  columns.push(["doubt", "doubt"]);
  data.aspects.forEach((name, i) => columns.push([name, "E" + i, "e" + i]));
  const broken = (element, name) => {
    // a line may end behind each underscore, so that columns stay narrow
    name.split("_").forEach((part, i, all) => element.append(part + (i < all.length - 1 ? "_" : ""), make("wbr")));
    return element;
  };
  for (const [name, ...orders] of columns) {
    const head = make("th");
    head.scope = "col";
    if (orders.length) {
      const button = broken(make("button"), name);
      button.type = "button";
      button.addEventListener("click", () => {
        const next = orders[(orders.indexOf(state.order) + 1) % orders.length];
        at("order").value = next;
        show(true);
      });
      head.append(button);
    } else broken(head, name);
    head.orders = orders;
    at("heads").append(head);
  }

  const chosen = () => {
    const flag = at("flag").value;
    const group = data.group !== null && at("group").value !== "" ? at("group").names[at("group").value] : null;
    const words = at("find").value.toLowerCase();
    const rows = data.rows.filter(
      (row) =>
        (!flag || (flag[0] === "-" ? !row.f.includes(flag[1]) : row.f.includes(flag))) &&
        (group === null || row.g === group) &&
        (!words || row.low.includes(words)),
    );
    const key = keys[state.order][1];
    return rows.sort((a, b) => key(a) - key(b) || a.n - b.n);
  };
  const cell = (tr, label, text, name) => {
    const td = make("td", text, name);
    td.dataset.label = label;
    tr.append(td);
    return td;
  };
  const snip = (tr, label, text) => {
    const td = cell(tr, label);
    td.className = "texts";
    td.append(make("div", text.length > SNIPPET ? text.slice(0, SNIPPET) + "…" : text, "snip"));
  };
  const pieces = (row) => {
    // [text, share]; the text that is shown may end before its last piece does
    const found = [];
    let start = 0;
    for (const [end, share] of row.x.x) {
      if (start < row.p.length) found.push([row.p.slice(start, end), share]);
      start = end;
    }
    return found;
  };
  const highlighted = (row) => {
    const box = make("div", undefined, "text");
    const own = pieces(row);
    const most = Math.max(...own.map(([, share]) => Math.abs(share || 0)), 1e-12);
    for (const [text, share] of own) {
      const part = Math.abs(share || 0) / most;
      if (share === null) box.append(make("span", text, "cut"));
      else if (part < 0.15) box.append(text);
      else {
        const mark = make("mark", text, (share < 0 ? "lo" : "hi") + (part > 0.5 ? " much" : ""));
        mark.title = signed(share);
        box.append(mark);
      }
    }
    return box;
  };
  const told = (row) => {
    const list = make("ul");
    const own = pieces(row).filter(([text, share]) => share && text.trim());
    for (const [word, sign] of [["Lowered", 1], ["Raised", -1]]) {
      const some = own.filter(([, share]) => share * sign < 0).sort((a, b) => sign * (a[1] - b[1])).slice(0, 5);
      const names = some.map(([text, share]) => `“${text.trim()}” ${signed(share)}`);
      if (names.length) list.append(make("li", `${word} most by ${names.join(", ")}`));
    }
    const layers = Object.entries(row.x.l).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1])).slice(0, 5);
    list.append(make("li", `Layers${layers.some(([n]) => !/^\d/.test(n)) ? " and checks" : ""} that moved it most: ${layers.map(([n, s]) => `${n} ${signed(s)}`).join(", ")}`));
    return list;
  };
  const detail = (row) => {
    const tr = make("tr", undefined, "detail");
    const whole = make("td");
    whole.colSpan = columns.length;
    const td = make("div", undefined, "box");
    whole.append(td);
    td.append(make("h3", "Question"), make("div", data.questions[row.q], "text"));
    td.append(make("h3", "Response"));
    if (row.x && row.x.x) {
      td.append(highlighted(row));
      const sum = `${data.explained}: decision value ${signed(row.x.v)} = constant ${signed(row.x.c)}, response ${signed(row.x.v - row.x.c - row.x.o)}, `;
      td.append(make("p", `${sum}question and template ${signed(row.x.o)}.`), told(row));
    } else {
      td.append(make("div", row.p, "text"));
      if (row.x) td.append(make("p", `No highlights: ${row.x.why}.`));
    }
    if (row.r) td.append(make("p", `Unfamiliar: ${row.r}.`));
    tr.append(whole);
    return tr;
  };
  const line = (row) => {
    const tr = make("tr", undefined, state.open.has(row.n) ? "open" : "");
    const first = cell(tr, "row", undefined, "num");
    const button = make("button", `${row.n + 1} `);
    button.type = "button";
    button.append(make("span", state.open.has(row.n) ? "▾" : "▸"));
    button.setAttribute("aria-expanded", state.open.has(row.n));
    button.setAttribute("aria-label", `Row ${row.n + 1}: question and response`);
    button.addEventListener("click", () => {
      if (!state.open.delete(row.n)) state.open.add(row.n);
      show(false);
      const again = at("body").querySelector(`button[data-row="${row.n}"]`);
      if (again) again.focus();
    });
    button.dataset.row = row.n;
    first.append(button);
    cell(tr, data.field, row.v === null ? "–" : row.v.toFixed(3), "num");
    snip(tr, "question", data.questions[row.q]);
    snip(tr, "response", row.p);
    cell(tr, "flags", [...row.f].map((mark) => FLAGS[mark]).join(", "));
    if (data.group !== null) cell(tr, data.group, row.g, "group");
    (row.l || []).forEach((label, i) => cell(tr, `${data.labels[i]} label`, label === null ? "–" : String(label), "num"));
    cell(tr, "doubt", row.d.toFixed(3), "num more");
    row.s.forEach((score, i) => cell(tr, data.aspects[i], `${score} (${row.e[i].toFixed(2)})`, "num more"));
    return tr;
  };
  function show(anew) {
    state.order = at("order").value;
    if (anew) {
      state.page = 0;
      state.rows = chosen();
    }
    const rows = state.rows;
    const last = Math.max(0, Math.ceil(rows.length / PAGE) - 1);
    state.page = Math.min(state.page, last);
    const part = rows.slice(state.page * PAGE, (state.page + 1) * PAGE);
    at("body").replaceChildren(...part.flatMap((row) => (state.open.has(row.n) ? [line(row), detail(row)] : [line(row)])));
    at("status").textContent = `${rows.length} of ${data.rows.length} rows, ${keys[state.order][0]}`;
    at("page").textContent = `Page ${state.page + 1} of ${last + 1}`;
    at("before").disabled = state.page === 0;
    at("after").disabled = state.page === last;
    for (const head of at("heads").children) {
      const place = head.orders.indexOf(state.order);
      const falls = ["high", "doubt"].includes(state.order) || state.order[0] === "E";
      if (place < 0) head.removeAttribute("aria-sort");
      else head.setAttribute("aria-sort", falls ? "descending" : "ascending");
    }
  }
  const turn = (by) => () => {
    state.page += by;
    show(false);
    at("table").scrollIntoView();
  };
  let wait;
  at("before").addEventListener("click", turn(-1));
  at("after").addEventListener("click", turn(1));
  for (const id of ["order", "flag", "group"]) at(id).addEventListener("change", () => show(true));
  at("find").addEventListener("input", () => {
    clearTimeout(wait);
    wait = setTimeout(() => show(true), 150);
  });
  at("controls").addEventListener("submit", (event) => event.preventDefault());
  for (const id of ["controls", "table", "pages"]) at(id).hidden = false;
  if (data.rows.some((row) => row.x)) {
    at("legend").hidden = false;
    at("legend").append("In an open row: ", make("mark", "lowered", "lo"), " and ", make("mark", "raised", "hi"));
    at("legend").append(` the decision value of ${data.explained}; bold marks did much; grey text was cut and not read. Marks describe the judge: they need not stand where a mistake is.`);
  }
  at("order").value = state.order;
  show(true);
})();
