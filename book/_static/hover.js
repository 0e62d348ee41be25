// Curves that answer the pointer. A picture with data-hover gets a button; only when it is pressed are the figure's
// data and the drawing library read, both from the book itself. Without scripts, and on paper, the picture is all.
(function () {
  "use strict";
  const here = new URL("./", document.currentScript.src);
  const NARROW = 560; // pixels below which panels stand one below the other
  const loaded = new Map();

  // a script tag also works where the page was opened as a file; fetch does not
  const load = (address) => {
    if (!loaded.has(address)) {
      loaded.set(address, new Promise((resolve, reject) => {
        const script = document.createElement("script");
        script.src = address;
        script.onload = resolve;
        script.onerror = () => {
          loaded.delete(address);
          script.remove();
          reject(new Error(address));
        };
        document.head.appendChild(script);
      }));
    }
    return loaded.get(address);
  };

  const make = (tag, name, text, parent) => {
    const made = document.createElement(tag);
    made.className = name;
    made.textContent = text;
    if (parent) parent.appendChild(made);
    return made;
  };

  const draw = (plot, figure) => {
    const width = plot.clientWidth;
    if (!width || plot.dataset.width === String(width)) return; // no width: not seen, as on paper
    plot.dataset.width = width;
    const stacked = width < NARROW;
    const layout = structuredClone(stacked ? figure.narrow : figure.wide);
    layout.width = width;
    layout.uirevision = String(stacked); // what was enlarged or hidden stays so in a wider window
    layout.font.family = getComputedStyle(document.body).fontFamily;
    layout.hoverlabel.font = { family: layout.font.family, size: 12 };
    window.Plotly.react(plot, structuredClone(figure.data), layout, {
      displaylogo: false,
      displayModeBar: !stacked,
      modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]],
      plotlyServerURL: "",
      showLink: false,
    });
  };

  const attach = (picture, number) => {
    const address = new URL(picture.dataset.hover, document.baseURI).href;
    const name = address.split("/").pop().replace(/\.js$/, "");
    // in a chapter the picture may stand in a link or a paragraph
    const top = picture.closest("figure > *") || picture;
    const bar = make("div", "hover-bar", "");
    const said = make("span", "hover-said", "", bar);
    said.setAttribute("role", "status");
    const button = make("button", "hover-button", "Interactive", bar);
    button.type = "button";
    button.setAttribute("aria-pressed", "false");
    button.setAttribute("aria-label", "Interactive version of: " + picture.alt);
    top.after(bar);
    let place = null;

    const show = (on) => {
      button.setAttribute("aria-pressed", String(on));
      button.textContent = !on ? "Interactive" : place.dataset.beside === "true" ? "Hide" : "Picture";
      place.hidden = !on;
      if (place.dataset.beside === "false") top.classList.toggle("hover-replaced", on);
      const figure = window.hepaperFigures[name];
      said.textContent = on ? figure.note : "";
      if (on) draw(place.firstChild, figure);
    };

    button.addEventListener("click", async () => {
      if (place) return show(place.hidden);
      if (button.disabled) return;
      button.disabled = true;
      said.textContent = "Loading …";
      try {
        await Promise.all([load(address), load(new URL("plotly.min.js", here).href)]);
        const figure = window.hepaperFigures[name];
        place = make("div", "hover-place", "");
        place.id = "hover-" + number;
        place.dataset.beside = String(Boolean(figure.beside));
        make("div", "hover-plot", "", place);
        top.after(place);
        button.setAttribute("aria-controls", place.id);
        show(true);
        new ResizeObserver(() => place.hidden || draw(place.firstChild, figure)).observe(place);
      } catch (error) {
        said.textContent = "The interactive version could not be loaded; the picture shows the same.";
      } finally {
        button.disabled = false;
        button.focus({ preventScroll: true });
      }
    });
  };

  const start = () => document.querySelectorAll("img[data-hover]").forEach(attach);
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
