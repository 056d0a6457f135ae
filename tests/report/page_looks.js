(() => {
  // What a page looks like, in figures, for Visit.look in browser.py. Nothing here changes the page.
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const known = new Map();

  // A CSS colour as red, green, blue (0 to 255) and opacity (0 to 1).
  function rgba(colour) {
    if (!known.has(colour)) {
      canvas.clearRect(0, 0, 1, 1);
      canvas.fillStyle = colour;
      canvas.fillRect(0, 0, 1, 1);
      const [red, green, blue, alpha] = canvas.getImageData(0, 0, 1, 1).data;
      known.set(colour, [red, green, blue, alpha / 255]);
    }
    return known.get(colour);
  }

  const over = ([r, g, b, alpha], ground) => [r, g, b].map((part, at) => part * alpha + ground[at] * (1 - alpha));
  const faded = ([r, g, b, alpha], share) => [r, g, b, alpha * share];

  function ancestors(element) {
    const found = [];
    for (let each = element; each; each = each.parentElement) found.push(each);
    return found;
  }

  // The colour behind an element: the backgrounds of its ancestors, the farthest first, on white paper.
  function ground(element) {
    return ancestors(element).reverse().reduce(
      (behind, each) => over(rgba(getComputedStyle(each).backgroundColor), behind), [255, 255, 255]);
  }

  const covers = (box, x, y) => box.left <= x && x <= box.right && box.top <= y && y <= box.bottom;

  // The colour behind words in a chart: that of the bar they stand on, where they stand on one.
  function groundOfWords(text) {
    const box = text.getBoundingClientRect(), x = (box.left + box.right) / 2, y = (box.top + box.bottom) / 2;
    const bars = [...text.ownerSVGElement.querySelectorAll("rect")].filter(
      bar => covers(bar.getBoundingClientRect(), x, y) && getComputedStyle(bar).fill !== "none");
    return bars.reduce((behind, bar) => over(painted(getComputedStyle(bar), "fill"), behind), ground(text));
  }

  const opacity = element => ancestors(element).reduce(
    (share, each) => share * Number(getComputedStyle(each).opacity), 1);

  function luminance(colour) {
    const [r, g, b] = colour.map(part => {
      const share = part / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  }

  // WCAG 2.2: contrast ratio.
  function contrast(one, other) {
    const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  }

  const shown = element => element.checkVisibility({opacityProperty: true, visibilityProperty: true,
    contentVisibilityAuto: true});
  const name = element => `${element.closest("section")?.id ?? ""} ${element.tagName.toLowerCase()}` +
    `.${element.getAttribute("class") ?? ""} ${element.textContent.trim().slice(0, 40)}`;

  // The elements that hold text of their own and are seen.
  function texts() {
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = new Set();
    while (walker.nextNode()) {
      const element = walker.currentNode.parentElement;
      if (walker.currentNode.data.trim() && !element.closest("script, style, title, desc, template") && shown(element))
        found.add(element);
    }
    return [...found];
  }

  function smallest() {
    return texts().map(element => {
      const scale = element.ownerSVGElement ? element.getScreenCTM().a : 1;
      return [parseFloat(getComputedStyle(element).fontSize) * scale, name(element)];
    }).sort((a, b) => a[0] - b[0]);
  }

  function textContrasts() {
    return texts().map(element => {
      const style = getComputedStyle(element);
      const behind = element.ownerSVGElement ? groundOfWords(element) : ground(element);
      const ink = element.ownerSVGElement ? faded(rgba(style.fill), Number(style.fillOpacity)) : rgba(style.color);
      return [contrast(over(faded(ink, opacity(element)), behind), behind), name(element)];
    }).sort((a, b) => a[0] - b[0]);
  }

  const painted = (style, part) => style[part] === "none" ? null
    : faded(rgba(style[part]), Number(style[`${part}Opacity`]));

  // What carries data: the better of its outline and its filling, on the chart's ground and on any tint that lies on it.
  function markContrasts(selector) {
    return [...document.querySelectorAll(selector)].filter(shown).map(element => {
      const style = getComputedStyle(element), svg = element.ownerSVGElement, plain = ground(svg);
      const tints = [...svg.querySelectorAll(".area")].map(area => over(painted(getComputedStyle(area), "fill"), plain));
      const paints = [painted(style, "stroke"), painted(style, "fill")].filter(Boolean);
      const worst = Math.min(...[plain, ...tints].map(behind => Math.max(0, ...paints.map(
        paint => contrast(over(faded(paint, opacity(element)), behind), behind)))));
      return [worst, name(element)];
    }).sort((a, b) => a[0] - b[0]);
  }

  // How a drawn thing looks to an eye that sees no colour: its outline, whether it is filled, how its line is broken.
  function form(element) {
    const style = getComputedStyle(element), fill = painted(style, "fill");
    const behind = ground(element.ownerSVGElement);
    const filled = fill !== null && contrast(over(faded(fill, opacity(element)), behind), behind) > 1.5;
    const shape = element.tagName + (element.getAttribute("points") ?? element.getAttribute("d") ?? "");
    return [shape, filled, style.strokeDasharray, Math.round(parseFloat(style.strokeWidth))].join(" ");
  }

  // The entries of each legend: form, words, and how its filling stands out from that of each other entry.
  function legends() {
    return [...document.querySelectorAll("figure")].map(figure => {
      const drawn = [...figure.querySelectorAll(".legend li")].map(item => ({
        words: item.textContent.trim(), shapes: [...item.querySelectorAll("svg *")].filter(each => each.tagName !== "g")}));
      const fillings = drawn.map(({shapes}) => shapes.length && painted(getComputedStyle(shapes[0]), "fill"));
      return {chart: name(figure), entries: drawn.map(({words, shapes}, at) => ({
        words,
        form: shapes.map(form).join(" + "),
        bar: shapes.every(each => each.tagName === "rect"),
        apart: fillings.map(other => other && fillings[at]
          ? contrast(over(other, ground(figure)), over(fillings[at], ground(figure))) : 1),
      }))};
    });
  }

  // What sticks out of the window and cannot be scrolled to.
  function protruding() {
    const edge = document.documentElement.clientWidth + 1;
    const scrolls = element => ancestors(element).slice(1).some(
      each => each !== document.body && each !== document.documentElement
        && ["auto", "scroll"].includes(getComputedStyle(each).overflowX));
    return [...document.body.querySelectorAll("*")].filter(element => shown(element) && !element.ownerSVGElement
      && element.getBoundingClientRect().right > edge && !scrolls(element)).map(name);
  }

  const inside = (inner, outer) => inner.left >= outer.left - 1 && inner.right <= outer.right + 1
    && inner.top >= outer.top - 1 && inner.bottom <= outer.bottom + 1;
  const apart = (one, other) => one.right <= other.left || other.right <= one.left
    || one.bottom <= other.top || other.bottom <= one.top;

  // Words of a chart that are cut off at its edge, and ticks that lie on each other.
  function crowded() {
    const faults = [];
    for (const svg of document.querySelectorAll("figure svg:not(.swatch-box)")) {
      if (!shown(svg)) continue;
      const box = svg.getBoundingClientRect();
      const words = [...svg.querySelectorAll("text")].map(element => [element.getBoundingClientRect(), element]);
      for (const [rect, element] of words)
        if (!inside(rect, box)) faults.push(`cut off: ${name(element)}`);
      const ticks = words.filter(([, element]) => element.matches(".tick, .axis-name"));
      ticks.forEach(([rect, element], at) => ticks.slice(at + 1).forEach(([other, next]) => {
        if (!apart(rect, other)) faults.push(`on each other: ${name(element)} / ${name(next)}`);
      }));
    }
    return faults;
  }

  function marksOutside() {
    return [...document.querySelectorAll("figure svg .mark, figure svg .point")].filter(mark => {
      const rect = mark.getBoundingClientRect();
      return !rect.width || !rect.height || !inside(rect, mark.ownerSVGElement.getBoundingClientRect());
    }).map(name);
  }

  function targets() {
    return [...document.querySelectorAll("button, summary, nav a, input, select")].filter(shown).map(element => {
      const rect = element.getBoundingClientRect();
      return [Math.min(rect.width, rect.height), name(element)];
    }).sort((a, b) => a[0] - b[0]);
  }

  return {smallest, textContrasts, markContrasts, legends, protruding, crowded, marksOutside, targets};
})()
