"use strict";
// Shows the card of the subnet that is chosen in a chart or a table, and copies commands. All it writes is text.
(() => {
  const make = (tag, text, kind) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (kind) element.className = kind;
    return element;
  };

  // -- commands: a button beside each line -------------------------------------------------------------------------

  const select = (code) => getSelection().selectAllChildren(code);

  const copy = async (code, button) => {
    let done = false;
    try {
      await navigator.clipboard.writeText(code.textContent);
      done = true;
    } catch {
      select(code);
      done = document.execCommand("copy");
    }
    if (!done) select(code);
    button.textContent = done ? "Copied" : "Press Ctrl+C";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  };

  const addButtons = (within) => {
    for (const code of within.querySelectorAll(".command code")) {
      const button = make("button", "Copy", "copy");
      button.type = "button";
      button.setAttribute("aria-label", "Copy: " + code.textContent);
      button.addEventListener("click", () => copy(code, button));
      code.after(button);
    }
  };

  addButtons(document);

  // -- print: folded tables that matter are open -------------------------------------------------------------------

  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details.printed:not([open])")];
    for (const details of opened) details.open = true;
  });
  addEventListener("afterprint", () => {
    for (const details of opened) details.open = false;
    opened = [];
  });

  // -- cards -------------------------------------------------------------------------------------------------------

  const island = document.querySelector("script.cards");
  const card = document.querySelector(".card");
  if (!island || !card) return;
  const deck = JSON.parse(island.textContent);
  const numbers = new Map(deck.rows.map((row, number) => [row.slice(0, row.indexOf("|")), number]));

  const shape = (number, genes) => {
    if (String(number) in deck.words) return deck.words[number];
    return genes.split(".").map((digits, at) => {
      const [name, choices, width] = deck.axes[at];
      const values = [];
      for (let place = 0; place < digits.length; place += width) {
        values.push(choices[parseInt(digits.slice(place, place + width), 36)]);
      }
      return name + " " + values.join(" ");
    }).join(", ");
  };

  const factsOf = (number) => {
    const [id, genes, quality, flags, ...costs] = deck.rows[number].split("|");
    const stopped = flags & 1, feasible = flags & 2, front = flags & 4;
    const place = Object.hasOwn(deck.places, id) ? deck.places[id] + ", " : "";
    const facts = [
      ["Place", place + (front ? "on the front" : "not on the front")],
      ["Shape", shape(number, genes)],
      [deck.quality, quality + " %" + (stopped ? " (an estimate: given up early)" : "")],
    ];
    deck.costs.forEach(([name, unit], at) => {
      const [value, upper, source] = costs.slice(3 * at, 3 * at + 3);
      if (source === "") return;
      const shown = value.endsWith(",") ? value + " " : value + unit + " ";
      facts.push([name, shown + deck.sources[source] + (upper ? ", at most " + upper + unit : "")]);
    });
    facts.push(["Budgets", feasible ? "kept" : "missed"]);
    return [id, facts];
  };

  const show = (number) => {
    const [id, facts] = factsOf(number);
    const list = make("dl");
    for (const [name, value] of facts) {
      const pair = make("div");
      pair.append(make("dt", name), make("dd", value));
      list.append(pair);
    }
    const lines = deck.commands.map(([purpose, before, after]) => {
      const command = make("p", undefined, "command");
      command.append(make("span", purpose), make("code", before + id + after));
      return command;
    });
    card.replaceChildren(make("h3", "Subnet " + id), list, ...lines);
    addButtons(card);
    point(number);
  };

  // -- the chart ---------------------------------------------------------------------------------------------------

  const svg = document.querySelector('svg[data-chart="front"]');
  const marks = [];  // of every mark: its row, its place in the chart, the element
  const rings = document.createElementNS("http://www.w3.org/2000/svg", "g");

  const placeOf = (mark) => {
    if (mark.tagName === "circle") return [+mark.getAttribute("cx"), +mark.getAttribute("cy")];
    return mark.getAttribute("d").match(/^M(\S+) ([\d.]+)/).slice(1).map(Number);
  };

  const point = (number) => {
    rings.replaceChildren();
    for (const mark of marks) {
      if (mark.number !== number) continue;
      const ring = document.createElementNS(rings.namespaceURI, "circle");
      ring.setAttribute("class", "ring chosen");
      ring.setAttribute("cx", mark.x);
      ring.setAttribute("cy", mark.y);
      ring.setAttribute("r", 8);
      rings.append(ring);
    }
  };

  if (svg) {
    for (const group of svg.querySelectorAll("g.marks[data-rows]")) {
      const rows = group.dataset.rows.split(" ");
      [...group.children].forEach((element, at) => {
        const [x, y] = placeOf(element);
        marks.push({ number: +rows[at], x, y, element });
      });
    }
    marks.sort((a, b) => a.x - b.x || a.y - b.y);
    svg.append(rings);
    let at = -1;

    const nearest = (event) => {
      const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      const reach = 24 * 720 / svg.clientWidth;  // 24 pixels, in the chart's own units
      let best = -1, least = reach * reach;
      marks.forEach((mark, number) => {
        const far = (mark.x - place.x) ** 2 + (mark.y - place.y) ** 2;
        if (far <= least) [best, least] = [number, far];
      });
      return best;
    };

    svg.addEventListener("click", (event) => {
      const found = nearest(event);
      if (found < 0) return;
      at = found;
      show(marks[at].number);
      card.scrollIntoView({ block: "nearest" });
    });

    svg.addEventListener("pointerover", (event) => {
      const group = event.target.closest("g.marks[data-rows]");
      if (!group || event.target.firstChild) return;
      const mark = marks.find((one) => one.element === event.target);
      if (!mark) return;
      const [id, facts] = factsOf(mark.number);
      const title = document.createElementNS(rings.namespaceURI, "title");
      title.textContent = [id, ...facts.map(([name, value]) => name + ": " + value)].join("\n");
      event.target.append(title);
    });

    const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 };
    svg.addEventListener("keydown", (event) => {
      const last = marks.length - 1;
      if (event.key in steps) {
        const from = at < 0 ? marks.findIndex((mark) => mark.number === winner) : at;
        at = Math.min(last, Math.max(0, from + steps[event.key]));
      } else if (event.key === "Home") at = 0;
      else if (event.key === "End") at = last;
      else return;
      event.preventDefault();
      show(marks[at].number);
    });

    const winner = numbers.get(card.dataset.subnet);
    svg.setAttribute("tabindex", "0");
    svg.setAttribute("role", "application");
    svg.setAttribute("aria-roledescription", "chart; arrow keys go from subnet to subnet");
  }

  for (const cell of document.querySelectorAll("table.subnets tbody th")) {
    const number = numbers.get(cell.textContent);
    if (number === undefined) continue;
    const button = make("button", cell.textContent, "subnet");
    button.type = "button";
    button.title = "Show its card";
    button.addEventListener("click", () => {
      show(number);
      card.scrollIntoView({ block: "nearest" });
    });
    cell.dataset.id = cell.textContent;  // what print shows in the button's place
    cell.replaceChildren(button);
  }
  for (const hint of document.querySelectorAll(".scripted")) hint.hidden = false;
})();
