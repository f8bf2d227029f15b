// Draws the charts one after another in place of their static images, in the colours of the page.
{
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const darkConfig = JSON.parse(document.getElementById("dark-config").textContent);
  const views = new Map();

  const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
  const merged = (base, over) => {
    const result = { ...base };
    for (const [key, value] of Object.entries(over)) {
      result[key] = isObject(result[key]) && isObject(value) ? merged(result[key], value) : value;
    }
    return result;
  };

  // A single panel of no stated width fills the column; everything else scrolls in its box.
  const isPanel = (spec) =>
    (spec.mark !== undefined || spec.layer !== undefined) &&
    !["facet", "row", "column"].some((channel) => spec.encoding?.[channel]) &&
    (spec.layer ?? []).every(isPanel);

  const forPage = (spec, width) => {
    const own = { background: "transparent", legend: { labelLimit: Math.min(320, width - 120) } };
    const config = merged(merged(spec.config ?? {}, own), dark.matches ? darkConfig : {});
    const fitted =
      isPanel(spec) && spec.width === undefined
        ? { width: "container", autosize: { type: "fit-x", contains: "padding" } }
        : {};
    return { ...spec, ...fitted, background: undefined, config };
  };

  const draw = async (chart) => {
    views.get(chart)?.finalize();
    const canvas = chart.querySelector(".canvas");
    try {
      const spec = JSON.parse(document.getElementById(chart.dataset.spec).textContent);
      const options = { actions: false, renderer: "svg", tooltip: { theme: dark.matches ? "dark" : "light" } };
      chart.classList.add("live");
      const { view } = await vegaEmbed(canvas, forPage(spec, chart.clientWidth), options);
      views.set(chart, view);
      chart.dataset.rendered = "true";
    } catch (error) {
      chart.classList.remove("live");
      chart.dataset.rendered = "false";
      console.error(`${chart.dataset.spec}: ${error}`);
    }
  };

  let round = 0;
  const drawAll = async () => {
    const mine = ++round;
    for (const chart of document.querySelectorAll(".chart")) {
      if (mine !== round) return; // the colours changed meanwhile: a newer round is under way
      await draw(chart);
      await new Promise((resolve) => setTimeout(resolve));
    }
    document.documentElement.dataset.drawn = "true";
  };

  dark.addEventListener("change", drawAll);
  drawAll();
  if (window.innerWidth < 1000) document.querySelector(".contents details").open = false;
}
