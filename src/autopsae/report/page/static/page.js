"use strict";
(function () {
  var PALETTES = {
    light: { ink: "#000000", muted: "#57606a", grid: "#e3e7eb", text: "#1b1f24" },
    dark: { ink: "#e6e9ec", muted: "#a3adb8", grid: "#323941", text: "#e6e9ec" }
  };
  // Okabe and Ito's colours, the same in both schemes.
  var COLORS = { vermilion: "#D55E00", blue: "#0072B2", orange: "#E69F00", green: "#009E73", pink: "#CC79A7", sky: "#56B4E9" };
  var root = document.documentElement;
  var drawn = JSON.parse(document.getElementById("drawn").textContent);
  var shown = {}, parsed = {};
  var coarse = matchMedia("(pointer: coarse)").matches;
  var PAPER = 660; // pixels of a figure on paper: A4 and Letter are wider within their usual margins
  var isPrinted = false;

  // Long JSON is compressed, and read when it is first asked for.
  function held(name) {
    if (!parsed[name]) {
      var letters = atob(document.getElementById(name).textContent), bytes = new Uint8Array(letters.length);
      for (var n = 0; n < letters.length; n++) bytes[n] = letters.charCodeAt(n);
      parsed[name] = new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
    }
    return parsed[name];
  }

  function colored(value, palette) {
    if (typeof value === "string" && value[0] === "@") return palette[value.slice(1)] || COLORS[value.slice(1)];
    if (Array.isArray(value)) return value.map(function (one) { return colored(one, palette); });
    if (value && typeof value === "object") {
      var copy = {};
      Object.keys(value).forEach(function (name) {
        // What comes from a file is no colour.
        var isText = name === "hovertext" || name === "name" || name === "text" || name === "ticktext" || name === "customdata";
        copy[name] = isText ? value[name] : colored(value[name], palette);
      });
      return copy;
    }
    return value;
  }

  function axis(own, palette) {
    var names = own.ticktext ? { ticktext: own.ticktext.map(function (name) { return name.replace(/\n/g, "<br>"); }) } : {};
    return Object.assign({ gridcolor: palette.grid, linecolor: palette.muted, zerolinecolor: palette.muted }, own,
      names, { title: Object.assign({ standoff: 8 }, own.title) });
  }

  // Lines of at most so many letters, where a word is not longer: a box that is wider than its figure leaves the window.
  function broken(text, letters) {
    return text.split("\n").map(function (line) {
      return line.split(" ").reduce(function (said, word) {
        var fits = said.length - said.lastIndexOf("<br>") + word.length <= letters;
        return said ? said + (fits ? " " : "<br>") + word : word;
      }, "");
    }).join("<br>");
  }

  function along(axis) { return axis.title.text; }

  function draw(id) {
    var place = document.getElementById(id);
    var palette = PALETTES[root.dataset.scheme];
    var figure = colored(drawn[id], palette);
    figure.data.forEach(function (trace) {
      if (trace.meta === "row") trace.hovertemplate = "%{fullData.name}<br>latent %{customdata}<br>" +
        along(figure.layout.xaxis) + ": %{x:" + figure.layout.meta.forms[0] + "}<br>" + along(figure.layout.yaxis) + ": %{y:" + figure.layout.meta.forms[1] + "}<extra></extra>";
      if (trace.meta === "point") trace.hovertemplate = "%{fullData.name}<br>" + along(figure.layout.xaxis) + " %{x:" +
        figure.layout.meta.forms[0] + "}<br>" + along(figure.layout.yaxis) + ": %{y:" + figure.layout.meta.forms[1] + "}<extra></extra>";
      if (!trace.hovertext) return;
      trace.hovertemplate = "%{hovertext}<extra></extra>";
      trace.hovertext = trace.hovertext.map(function (text) { return broken(trace.name + "\n" + text, place.clientWidth / 8); });
    });
    var names = figure.layout.showlegend ? figure.data.length : 0;
    var rows = Math.ceil(names / Math.max(1, Math.floor((isPrinted ? PAPER : place.clientWidth) / 150)));
    // Marks that are drawn small, as there are many, would be too small in the legend.
    var small = figure.data.some(function (trace) { return trace.marker && trace.marker.size < 5; });
    var layout = Object.assign({}, figure.layout, {
      height: (isPrinted ? 230 : 360) + 20 * rows,
      margin: { l: 8, r: 8, t: 8, b: 8 },
      font: { color: palette.text, size: 12, family: getComputedStyle(document.body).fontFamily },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      hovermode: "closest", dragmode: coarse ? false : "zoom",
      hoverlabel: { align: "left", bgcolor: root.dataset.scheme === "dark" ? "#1d2127" : "#ffffff", bordercolor: palette.muted,
        font: { color: palette.text } },
      legend: { orientation: "h", itemsizing: small ? "constant" : "trace", yanchor: "bottom", y: 1.02, x: 0 },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: palette.muted, activecolor: palette.text },
      xaxis: axis(Object.assign({ zeroline: false }, figure.layout.xaxis), palette), yaxis: axis(figure.layout.yaxis, palette)
    });
    if (isPrinted) layout.width = PAPER;
    var config = { displaylogo: false, responsive: true, displayModeBar: coarse ? true : "hover",
      modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]], toImageButtonOptions: { filename: "autopsae" } };
    place.style.height = layout.height + "px"; // it keeps it when the window changes
    Plotly.react(place, figure.data, layout, config);
    if (!shown[id]) {
      shown[id] = true;
      place.on("plotly_click", function (event) {
        var link = event.points[0] && event.points[0].customdata, meta = drawn[id].layout.meta;
        if (link === undefined || link === null || link === "") return;
        if (meta && meta.lookup) look(meta.lookup, link, true);
        else open(link);
      });
    }
  }

  // A part of the page; "lookup-number": a row of a long table.
  function open(id) {
    var parts = id.split("-"), detail = document.getElementById(parts[0]);
    if (!detail) return;
    if (parts.length > 1) {
      history.replaceState(null, "", "#" + id);
      look(parts[0], Number(parts[1]), true);
      return;
    }
    for (var part = detail; part; part = part.parentElement) if (part.tagName === "DETAILS") { fill(part); part.open = true; }
    history.replaceState(null, "", "#" + id);
    detail.scrollIntoView({ block: "start" });
    var summary = detail.querySelector("summary");
    if (summary) summary.focus({ preventScroll: true });
  }

  // A row of a long table: its cells become lines.
  function look(anchor, number, goThere) {
    var place = document.getElementById(anchor);
    place.querySelector("input").value = number;
    held("looked-up").then(function (all) {
      if (!all[anchor].contexts) return show(place, all[anchor], number, null, goThere);
      held("contexts").then(function (texts) { show(place, all[anchor], number, texts[all[anchor].contexts][number], goThere); });
    });
  }

  function show(place, own, number, examples, goThere) {
    var body = place.querySelector("tbody");
    var row = own.rows.find(function (one) { return one[0] === number; });
    var words = own.header[0] + " " + number;
    place.querySelector("caption").textContent = row ? words : "There is no " + words;
    body.textContent = "";
    (row || []).forEach(function (value, n) {
      var line = body.insertRow(), head = document.createElement("th");
      head.scope = "row";
      head.textContent = own.header[n];
      line.appendChild(head);
      line.insertCell().textContent = typeof value === "number" ? value.toLocaleString("en", { maximumSignificantDigits: 5 }) : value;
    });
    place.classList.add("asked");
    if (own.contexts) context(place, row && examples);
    if (goThere) place.scrollIntoView({ block: "nearest" });
  }

  function add(place, kind, text, name) {
    var part = document.createElement(kind);
    part.textContent = text;
    if (name) part.className = name;
    place.appendChild(part);
    return part;
  }

  // The tokens on which a latent fires most, in their context.
  function context(place, examples) {
    var list = place.querySelector("ol");
    list.textContent = "";
    place.querySelector(".fires").textContent = examples ? "It fires most on these tokens:" : "Where it fires is not on this page.";
    (examples || []).forEach(function (one) {
      var item = add(list, "li", ""), where = (one[1] === null ? "" : "document " + one[1] + ", ") + "token " + one[2];
      add(item, "span", one[0] + ", " + where, "muted");
      item.appendChild(document.createElement("br"));
      var text = add(item, "span", one[3], "context");
      add(text, "mark", one[4]);
      text.appendChild(document.createTextNode(one[5]));
    });
  }

  document.addEventListener("submit", function (event) {
    event.preventDefault();
    var place = event.target.closest(".lookup");
    look(place.id, Number(place.querySelector("input").value), false);
  });

  // One figure at a time, so that the page answers in between.
  var waiting = [], isDrawing = false;
  function next() {
    if (isDrawing || !waiting.length) return;
    isDrawing = true;
    setTimeout(function () {
      var id = waiting.shift();
      if (!shown[id]) draw(id);
      isDrawing = false;
      next();
    }, 0);
  }

  function observe(part) { part.querySelectorAll(".plot").forEach(function (place) { near.observe(place); }); }

  function fill(detail) {
    var id = detail.dataset.inside;
    if (!id) return;
    delete detail.dataset.inside;
    held("inside").then(function (all) {
      var template = document.createElement("template");
      template.innerHTML = all[id];
      detail.appendChild(template.content);
      observe(detail);
    });
  }

  function redraw() { Object.keys(shown).forEach(draw); }

  function scheme(name) {
    root.dataset.scheme = name;
    var button = document.getElementById("scheme");
    button.textContent = name === "dark" ? "Light colours" : "Dark colours";
    redraw();
  }

  function sort(button) {
    var head = button.closest("th"), row = head.parentElement, body = row.closest("table").tBodies[0];
    var column = Array.prototype.indexOf.call(row.children, head);
    var down = head.getAttribute("aria-sort") === "ascending";
    Array.prototype.forEach.call(row.children, function (one) { one.removeAttribute("aria-sort"); });
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    var rows = Array.prototype.map.call(body.rows, function (one) {
      var cell = one.cells[column], data = cell.querySelector("data");
      return { row: one, number: data ? Number(data.value) : null, text: cell.textContent };
    });
    rows.sort(function (a, b) {
      // What has no number stands last, whichever way.
      if ((a.number === null) !== (b.number === null)) return a.number === null ? 1 : -1;
      var order = a.number === null ? a.text.localeCompare(b.text, "en", { numeric: true }) : a.number - b.number;
      return down ? -order : order;
    });
    rows.forEach(function (one) { body.appendChild(one.row); });
  }

  function copy(button) {
    var code = button.parentElement.querySelector("code");
    function say(word) { button.textContent = word; setTimeout(function () { button.textContent = "Copy"; }, 1500); }
    function select() {
      var range = document.createRange();
      range.selectNodeContents(code);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      say("Selected");
    }
    if (navigator.clipboard) navigator.clipboard.writeText(code.textContent).then(function () { say("Copied"); }, select);
    else select();
  }

  document.addEventListener("click", function (event) {
    var button = event.target.closest("button"), link = event.target.closest("a[href^='#']");
    if (button && button.id === "scheme") scheme(root.dataset.scheme === "dark" ? "light" : "dark");
    else if (button && button.closest("thead")) sort(button);
    else if (button && button.className === "copy") copy(button);
    else if (link && opens(link.hash.slice(1))) { event.preventDefault(); open(link.hash.slice(1)); }
  });

  // Whether a link leads to what is closed, or to a row of a long table; other links the browser follows.
  function opens(id) { return id.indexOf("-") > 0 || document.getElementById(id).tagName === "DETAILS"; }

  var preferred = matchMedia("(prefers-color-scheme: dark)");
  scheme(preferred.matches ? "dark" : "light");
  preferred.addEventListener("change", function () { scheme(preferred.matches ? "dark" : "light"); });

  // What is inside of details is compressed, and made when they are opened: fifty layers would keep the browser busy.
  document.addEventListener("toggle", function (event) { if (event.target.open) fill(event.target); }, true);

  // A figure is drawn when it comes near: fifty at once would take seconds.
  var near = new IntersectionObserver(function (entries) {
    entries.forEach(function (entry) {
      if (entry.isIntersecting && !shown[entry.target.id] && waiting.indexOf(entry.target.id) < 0) waiting.push(entry.target.id);
    });
    next();
  }, { rootMargin: "200px" });
  observe(document);
  // The first one at once: it is what a reader scrolls to.
  waiting.push.apply(waiting, Array.prototype.map.call(document.querySelectorAll(".plot"), function (place) { return place.id; }).slice(0, 1));
  next();

  // On paper all figures are drawn, as wide as it is and in light colours, and it says what wrote the results.
  var before = null;
  addEventListener("beforeprint", function () {
    var closed = Array.prototype.slice.call(document.querySelectorAll(".wrote:not([open])"));
    before = { scheme: root.dataset.scheme, closed: closed };
    closed.forEach(function (one) { one.open = true; });
    isPrinted = true;
    document.querySelectorAll(".plot").forEach(function (place) { if (place.clientWidth) shown[place.id] || draw(place.id); });
    scheme("light");
  });
  addEventListener("afterprint", function () {
    if (!before) return;
    before.closed.forEach(function (one) { one.open = false; });
    isPrinted = false;
    scheme(before.scheme);
    before = null;
  });
  if (location.hash) open(location.hash.slice(1));
})();
