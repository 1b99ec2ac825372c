(function () {
  "use strict";
  var figures = JSON.parse(document.getElementById("figures").textContent);
  document.documentElement.classList.add("drawn");
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  var config = { responsive: true, displaylogo: false, displayModeBar: "hover",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"], toImageButtonOptions: { format: "svg" } };

  // Vega-Lite: drawn once for each theme that is asked for; the style sheet shows the right one, also in print.
  function exchanged(value, themes) {
    if (typeof value === "string") return themes.exchange[value] || value;
    if (Array.isArray(value)) return value.map(function (part) { return exchanged(part, themes); });
    if (!value || typeof value !== "object") return value;
    var out = {};
    Object.keys(value).forEach(function (key) {
      out[key] = themes.keep.indexOf(key) >= 0 ? value[key] : exchanged(value[key], themes);
    });
    return out;
  }

  // As many panels side by side as fit when the picture shrinks a little; one panel takes what there is.
  function fitted(spec, width) {
    var out = Object.assign({}, spec);
    if (spec.facet && spec.spec) {
      var one = (typeof spec.spec.width === "number" ? spec.spec.width : 260) + 22;
      out.columns = Math.max(1, Math.min(spec.columns || 1, Math.floor((width / 0.85 - 80) / one)));
    } else if (typeof spec.width === "number" && width < spec.width + 200) {
      out.width = Math.max(200, Math.min(spec.width, width - 170));
    }
    if (out.title && out.title.subtitle) out.title = Object.assign({}, out.title, { subtitle: lines(out.title.subtitle, width) });
    return out;
  }

  function lines(subtitle, width) {
    var most = Math.max(30, Math.floor(width / 6.2)), whole = [].concat(subtitle);
    if (whole.every(function (line) { return line.length <= most; })) return whole;
    var out = [""];
    whole.join(" ").split(" ").forEach(function (word) {
      var last = out.length - 1;
      if (out[last] && out[last].length + word.length + 1 > most) out.push(word);
      else out[last] += (out[last] ? " " : "") + word;
    });
    return out;
  }

  function drawVega(element, spec, theme) {
    var themes = window.layerprobeThemes, place = element.querySelector(".on-" + theme);
    if (!place) {
      place = document.createElement("div");
      place.className = "on-" + theme;
      element.appendChild(place);
    }
    var shown = fitted(spec, element.clientWidth || document.querySelector("main").clientWidth);
    if (theme === "dark") shown = exchanged(shown, themes);
    var options = { ast: true, renderer: "svg", actions: false, mode: "vega-lite", config: themes[theme],
      tooltip: { theme: theme === "dark" ? "dark" : "light" } };
    return window.vegaEmbed(place, shown, options);
  }

  var vega = [];
  function drawAll(theme, again) {
    vega.reduce(function (before, figure) {
      return before.then(function () {
        if (again || !figure.element.querySelector(".on-" + theme)) return drawVega(figure.element, figure.spec, theme);
      });
    }, Promise.resolve()).then(function () {
      if (theme === "dark") drawAll("light", again);  // for print
    });
  }
  dark.addEventListener("change", function () { drawAll(dark.matches ? "dark" : "light"); });
  var was = window.innerWidth, waiting;
  window.addEventListener("resize", function () {
    clearTimeout(waiting);
    waiting = setTimeout(function () {
      if (was !== window.innerWidth) drawAll(dark.matches ? "dark" : "light", true);
      was = window.innerWidth;
    }, 200);
  });

  // On a narrow page small multiples stand below one another instead of side by side.
  function narrowed(spec, width) {
    var layout = JSON.parse(JSON.stringify(spec.layout));
    var axes = Object.keys(layout).filter(function (k) { return /^xaxis\d*$/.test(k) && layout[k].domain; });
    var starts = {};
    axes.forEach(function (k) { starts[layout[k].domain[0].toFixed(3)] = true; });
    if (width > 620 || Object.keys(starts).length < 2) return layout;
    return stacked(layout, axes);
  }

  function stacked(layout, axes) {
    var n = axes.length, gap = Math.min(0.09, 0.35 / n), height = (1 - gap * (n - 1)) / n;
    axes.forEach(function (key, i) {
      var suffix = key.slice(5), x = layout[key], y = layout["yaxis" + suffix];
      if (!y) return;
      var top = 1 - i * (height + gap);
      var old = { x: x.domain.slice(), y: y.domain.slice() };
      (layout.annotations || []).forEach(function (a) {
        var middle = (old.x[0] + old.x[1]) / 2;
        if (a.xref === "paper" && a.yref === "paper" && Math.abs(a.x - middle) < 0.02 && Math.abs(a.y - old.y[1]) < 0.02) {
          a.moveTo = [0.5, top];
        }
      });
      x.domain = [0, 1]; y.domain = [Math.max(0, top - height), top];
      x.showticklabels = true; y.showticklabels = true;
    });
    (layout.annotations || []).forEach(function (a) {
      if (a.moveTo) { a.x = a.moveTo[0]; a.y = a.moveTo[1]; delete a.moveTo; }
    });
    layout.height = 110 + 210 * n;
    return layout;
  }

  Object.keys(figures).forEach(function (id) {
    var element = document.getElementById(id);
    if (!element) return;
    element.textContent = "";
    var spec = figures[id];
    if (/vega-lite/.test(spec.$schema || "")) { vega.push({ element: element, spec: spec }); return; }
    var layout = narrowed(spec, element.clientWidth);
    layout.autosize = true;
    layout.margin = Object.assign({}, layout.margin, element.clientWidth < 620 ? { l: 52, r: 8 } : {});
    Plotly.newPlot(element, spec.data, layout, config);
  });
  if (vega.length) drawAll(dark.matches ? "dark" : "light");

  window.addEventListener("beforeprint", function () {
    document.querySelectorAll("details").forEach(function (d) { d.dataset.was = d.open ? "1" : ""; d.open = true; });
    document.querySelectorAll(".js-plotly-plot").forEach(function (p) { Plotly.Plots.resize(p); });
  });
  window.addEventListener("afterprint", function () {
    document.querySelectorAll("details").forEach(function (d) { d.open = d.dataset.was === "1"; });
  });
})();
