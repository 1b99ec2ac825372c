(function () {
  "use strict";
  var figures = JSON.parse(document.getElementById("figures").textContent);
  if (typeof Plotly === "undefined") return;
  document.documentElement.classList.add("drawn");
  var config = { responsive: true, displaylogo: false, displayModeBar: "hover",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"], toImageButtonOptions: { format: "svg" } };

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
    var layout = narrowed(spec, element.clientWidth);
    layout.autosize = true;
    layout.margin = Object.assign({}, layout.margin, element.clientWidth < 620 ? { l: 52, r: 8 } : {});
    Plotly.newPlot(element, spec.data, layout, config);
  });

  window.addEventListener("beforeprint", function () {
    document.querySelectorAll("details").forEach(function (d) { d.dataset.was = d.open ? "1" : ""; d.open = true; });
    document.querySelectorAll(".plot").forEach(function (p) { Plotly.Plots.resize(p); });
  });
  window.addEventListener("afterprint", function () {
    document.querySelectorAll("details").forEach(function (d) { d.open = d.dataset.was === "1"; });
  });
})();
