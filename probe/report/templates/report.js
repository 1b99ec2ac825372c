(function () {
  "use strict";
  var figures = JSON.parse(document.getElementById("figures").textContent);
  var themes = window.layerprobeThemes;
  if (typeof vegaEmbed === "undefined") return;
  document.documentElement.classList.add("drawn");
  var dark = window.matchMedia("(prefers-color-scheme: dark)");

  // Pictures are written in the colours of the light theme; names and texts are never taken for colours.
  function exchanged(value) {
    if (typeof value === "string") return themes.exchange[value] || value;
    if (Array.isArray(value)) return value.map(exchanged);
    if (!value || typeof value !== "object") return value;
    var out = {};
    Object.keys(value).forEach(function (key) {
      out[key] = themes.keep.indexOf(key) >= 0 ? value[key] : exchanged(value[key]);
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
    if (spec.vconcat) out.vconcat = spec.vconcat.map(function (part) { return fitted(part, width); });
    if (out.title && out.title.subtitle) {
      out.title = Object.assign({}, out.title, { subtitle: lines(out.title.subtitle, width) });
    }
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

  function draw(figure, theme) {
    var place = figure.element.querySelector(".on-" + theme);
    if (!place) {
      place = document.createElement("div");
      place.className = "on-" + theme;
      figure.element.appendChild(place);
    }
    var width = figure.element.clientWidth || document.querySelector("main").clientWidth;
    var spec = fitted(figure.spec, width);
    // `ast`: expressions are interpreted, so that the page's policy needs no 'unsafe-eval'; `logLevel`: errors only,
    // for Vega warns of every panel that has no row of one of its marks
    return vegaEmbed(place, theme === "dark" ? exchanged(spec) : spec, {
      ast: true, renderer: "svg", actions: false, logLevel: 1, mode: "vega-lite", config: themes[theme], tooltip: { theme: theme } });
  }

  // One after the other, so that the first are there at once. The style sheet shows the theme that is asked
  // for; the light one is always drawn, for print.
  function drawAll(theme, again) {
    drawn.reduce(function (before, figure) {
      return before.then(function () {
        if (again || !figure.element.querySelector(".on-" + theme)) return draw(figure, theme);
      }).catch(function (error) { console.error(figure.element.id, error); });
    }, Promise.resolve()).then(function () {
      if (theme === "dark") drawAll("light", again);
    });
  }

  function wanted() { return dark.matches ? "dark" : "light"; }

  var drawn = Object.keys(figures).map(function (id) {
    return { element: document.getElementById(id), spec: figures[id] };
  }).filter(function (figure) { return figure.element; });
  drawn.forEach(function (figure) { figure.element.textContent = ""; });
  drawAll(wanted());
  dark.addEventListener("change", function () { drawAll(wanted()); });

  var width = window.innerWidth, waiting;
  window.addEventListener("resize", function () {
    clearTimeout(waiting);
    waiting = setTimeout(function () {
      if (width !== window.innerWidth) drawAll(wanted(), true);
      width = window.innerWidth;
    }, 200);
  });

  window.addEventListener("beforeprint", function () {
    document.querySelectorAll("details").forEach(function (d) { d.dataset.was = d.open ? "1" : ""; d.open = true; });
  });
  window.addEventListener("afterprint", function () {
    document.querySelectorAll("details").forEach(function (d) { d.open = d.dataset.was === "1"; });
  });
})();
