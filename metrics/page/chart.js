// A chart: uPlot, in the colours of style.css, with the deploys as marks on the time line.
import {clock, element, DAY, MINUTE, MOMENT} from "./document.js";

const HEIGHT = 180;

/** Return the colours, #rrggbb each, that a property of style.css lists. */
function colours(property) {
  const listed = getComputedStyle(document.documentElement).getPropertyValue(property);
  return listed.split(",").map((one) => one.trim());
}

/** One of CHARTS, put at the end of an element. */
export class Chart {
  constructor(kind, parent) {
    this.kind = kind;
    this.plot = element("div", {className: "plot"});
    const title = element("b", {textContent: kind.title});
    this.figure = element("figure", {}, element("figcaption", {}, title), this.plot);
    parent.append(this.figure);
    new ResizeObserver(() => {
      this.drawn?.setSize({width: this.plot.clientWidth, height: HEIGHT});
    }).observe(this.plot);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      if (this.drawn) this.draw(true);
    });
  }

  /** Show lines, [{name, values}], over times, and deploys, [{version, time}]. */
  show(lines, times, deploys) {
    Object.assign(this, {lines, times, deploys});
    const names = JSON.stringify(lines.map(({name, values}) => [name, values.at(-1) === null]));
    this.draw(names !== this.names);
    this.names = names;
  }

  /** Draw in place, or anew for other lines or colours. */
  draw(anew) {
    const data = [this.times, ...this.lines.map(({values}) => values)];
    const points = data.slice(1).flat().filter((value) => value !== null).length;
    if (anew || !points || !this.drawn) {
      this.drawn?.destroy();
      this.drawn = points ? new uPlot(this.options(), data, this.plot) : null;
    } else {
      this.drawn.setData(data);
    }
    Object.assign(this.figure.dataset, {points, deploys: this.deploys.length});
  }

  /** Return what uPlot need know. */
  options() {
    const {kind, lines} = this;
    const palette = colours("--series");
    const [quiet] = colours("--quiet");
    const [grid] = colours("--line");
    const label = (value) => (value === null ? "" : kind.show(value));
    const axis = {stroke: quiet, font: "12px system-ui, sans-serif", ticks: {show: false}};
    let used = -1;
    const series = lines.map(({name, values}) => {
      // What no longer is stays to be seen, without a colour and a name.
      const gone = values.at(-1) === null && lines.length > 1;
      const plain = gone || name === "limit";
      if (!plain) used++;
      const stroke = plain ? quiet : palette[used % palette.length];
      return {
        label: name,
        class: gone ? "gone" : "here",
        stroke,
        fill: lines.length === 1 ? `${stroke}26` : undefined,
        width: gone ? 0.75 : 1.5,
        dash: name === "limit" || used >= palette.length ? [6, 4] : undefined,
        paths: kind.stepped ? uPlot.paths.stepped({align: 1}) : undefined,
        value: (plot, value) => label(value),
      };
    });
    return {
      width: this.plot.clientWidth,
      height: HEIGHT,
      series: [
        {label: "Time", value: (plot, time) => (time === null ? "" : clock(time, MOMENT))},
        ...series,
      ],
      scales: {y: {range: (plot, low, high) => [0, Math.max(high * 1.1, kind.least ?? 0) || 1]}},
      axes: [
        {
          ...axis,
          grid: {show: false},
          space: 60,
          size: 28,
          values: (plot, times, index, space, step) =>
            times.map((time) => clock(time, step < 86400 ? MINUTE : DAY)),
        },
        {
          ...axis,
          grid: {stroke: grid, width: 1},
          incrs: kind.steps,
          values: (plot, values) => values.map(label),
          size: 64,
        },
      ],
      cursor: {sync: {key: "time"}, drag: {x: false, y: false}},
      hooks: {
        draw: [(plot) => drawDeploys(plot, this.deploys, quiet)],
        // While nobody points at a time, the legend says how it is now.
        setLegend: [
          (plot) => plot.legend.idx ?? plot.setLegend({idx: plot.data[0].length - 1}, false),
        ],
      },
    };
  }
}

function drawDeploys({ctx, bbox, data, valToPos}, deploys, stroke) {
  ctx.save();
  ctx.strokeStyle = stroke;
  ctx.lineWidth = devicePixelRatio;
  ctx.setLineDash([2 * devicePixelRatio, 3 * devicePixelRatio]);
  ctx.beginPath();
  for (const {time} of deploys) {
    const x = Math.round(valToPos(Math.max(time, data[0][0]), "x", true));
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
  }
  ctx.stroke();
  ctx.restore();
}
