/* Scans in the page: adds to every figure of class viewer-NAME a button that opens the scans of viewer/NAME/.

   Nothing is loaded before the button is pressed; then NiiVue, the list of cases, and the case that is chosen, each as
   a script, because a page from the file system may not fetch files. Where anything fails the picture stays. */
(() => {
  "use strict";

  const here = new URL(".", document.currentScript.src).href; // _static/, on the file system or on a host
  const PRESETS = [["Brain", 40, 80], ["Stroke", 40, 40], ["Blood", 75, 150]];
  const arrived = new Map();
  const asked = new Map();

  window.hepaperViewer = { put: (key, content) => arrived.set(key, content) };

  function load(file) {
    if (!asked.has(file)) {
      asked.set(file, new Promise((done, failed) => {
        const script = document.createElement("script");
        script.src = here + file;
        script.onload = done;
        script.onerror = () => {
          asked.delete(file);
          script.remove();
          failed(new Error(`${file} is not in this book`));
        };
        document.head.append(script);
      }));
    }
    return asked.get(file);
  }

  async function content(key) {
    await load(`viewer/${key}.js`);
    return arrived.get(key);
  }

  const buffer = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;

  /* An element with attributes and children; text is text. */
  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  /* Two names may be alike in different figures of a page. */
  let count = 0;
  function labelled(text, control, ...after) {
    control.id = `he-control-${(count += 1)}`;
    return make("div", { class: "he-row" }, make("label", { for: control.id }, text), control, ...after);
  }

  const slider = (least, most, step, value) =>
    Object.assign(make("input", { type: "range", min: least, max: most, step }), { value });

  const rgb = (scale, node) => `rgb(${scale.R[node]} ${scale.G[node]} ${scale.B[node]})`;

  class Viewer {
    constructor(name, about) {
      this.name = name;
      this.about = about;
      this.slice = 0;
      this.case = about.cases[0];
      this.busy = Promise.resolve();
      this.box = make("div", { class: "he-viewer", role: "group", "aria-label": "Scan viewer" });
      this.canvas = make("canvas");
      this.screen = make("div", { class: "he-screen", tabindex: "0", role: "img" }, make("div", {}, this.canvas));
      this.place = make("output", { class: "he-place" });
      this.box.append(this.cases(), this.screen, this.slices(), this.window(), this.overlays());
    }

    cases() {
      this.chooser = make("select", {}, ...this.about.cases.map((one, n) => make("option", { value: n }, one.label)));
      // what goes wrong is said below the scan
      this.chooser.addEventListener("change", () => this.choose(Number(this.chooser.value)).catch(() => {}));
      return labelled("Scan", this.chooser);
    }

    slices() {
      this.stack = slider(0, 0, 1, 0);
      this.stack.addEventListener("input", () => this.go(Number(this.stack.value)));
      const by = (step, sign, name) => {
        const button = make("button", { type: "button", "aria-label": name }, sign);
        button.addEventListener("click", () => this.go(this.slice + step));
        return button;
      };
      this.screen.addEventListener("keydown", (event) => {
        const last = this.case.slices - 1;
        const to = {
          ArrowUp: this.slice + 1, ArrowRight: this.slice + 1, ArrowDown: this.slice - 1, ArrowLeft: this.slice - 1,
          PageUp: this.slice + 5, PageDown: this.slice - 5, Home: 0, End: last,
        }[event.key];
        if (to === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
        event.preventDefault();
        this.go(to);
      });
      // the wheel turns slices only while the scan has the focus, so that the page can be scrolled past it
      let turned = 0;
      this.screen.addEventListener("wheel", (event) => {
        if (document.activeElement !== this.screen || event.ctrlKey) return;
        event.preventDefault();
        turned += event.deltaMode ? 40 * event.deltaY : event.deltaY;
        const steps = Math.trunc(turned / 40);
        turned -= 40 * steps;
        if (steps) this.go(this.slice - Math.sign(steps) * Math.min(Math.abs(steps), 3));
      }, { passive: false });
      return make("div", { class: "he-part" },
        labelled("Slice", this.stack, by(-1, "▼", "Slice below"), by(1, "▲", "Slice above")), this.place);
    }

    window() {
      const [least, most] = this.about.range;
      const field = (attributes) => {
        const input = make("input", { type: "number", step: "1", ...attributes });
        input.addEventListener("change", () => this.level(this.centre.value, this.width.value));
        return input;
      };
      this.centre = field({ min: least, max: most });
      this.width = field({ min: 1, max: most - least });
      const all = ["All", Math.round((least + most) / 2), most - least];
      this.presets = [...PRESETS, all].map(([name, level, width]) => {
        const button = make("button", { type: "button" }, `${name} ${level}/${width}`);
        button.addEventListener("click", () => this.level(level, width));
        button.window = `${level}/${width}`;
        return button;
      });
      return make("fieldset", {}, make("legend", {}, "Window (HU)"),
        make("div", { class: "he-row" }, ...this.presets),
        make("div", { class: "he-pair" }, labelled("Level", this.centre), labelled("Width", this.width)));
    }

    overlays() {
      this.shown = this.about.overlays.map(({ name, heat, scale, opacity }) => {
        const last = scale.I.length - 1;
        const stops = scale.I.map((at, node) => `${rgb(scale, node)} ${(100 * at) / 255}%`).join(", ");
        const look = heat ? `linear-gradient(to right, ${stops})` : rgb(scale, last);
        const swatch = make("span", { class: heat ? "he-swatch he-heat" : "he-swatch", style: `background: ${look}` });
        const on = Object.assign(make("input", { type: "checkbox" }), { checked: true });
        const strength = slider(0, 1, 0.05, opacity);
        strength.setAttribute("aria-label", `Opacity of: ${name}`);
        strength.title = "Opacity";
        for (const input of [on, strength]) input.addEventListener("input", () => this.cover());
        const row = labelled(name, on, ...(heat ? [make("span", { class: "he-ends" }, "0", swatch, "the map’s maximum")]
          : [swatch]), strength);
        row.classList.add("he-overlay");
        row.prepend(on);
        return { on, strength, row };
      });
      return make("fieldset", {}, make("legend", {}, "Over the scan"), ...this.shown.map(({ row }) => row));
    }

    async start() {
      this.view = new window.hepaperNiivue({
        interactive: false, dragAndDropEnabled: false, isRadiologicalConvention: true, crosshairWidth: 0,
        backColor: [0, 0, 0, 1], isOrientationTextVisible: false, loadingText: "", logLevel: "error", sliceType: 0,
        isAntiAlias: false,
      });
      for (const [n, { scale }] of this.about.overlays.entries()) this.view.addColormap(this.colour(n), scale);
      await this.view.attachToCanvas(this.canvas);
      this.view.setSliceType(0);
      await this.choose(0);
      this.level(...this.about.window);
    }

    colour(n) {
      return `${this.name}-${n}`;
    }

    /* Everything anew, the scan smooth between its pixels and what lies over it not: colours must not mix there. */
    renew() {
      this.view.updateGLVolume();
      this.view.opts.isNearestInterpolation = true;
      this.view.updateInterpolation(1);
      this.view.opts.isNearestInterpolation = false;
      this.view.drawScene();
    }

    /* One case after another, however fast the reader chooses. */
    choose(n) {
      const filled = this.busy.then(() => this.fill(n));
      this.busy = filled.catch((error) => {
        this.place.textContent = `This scan cannot be shown: ${error.message}.`;
      });
      return filled;
    }

    async fill(n) {
      const files = await content(`${this.name}/${n + 1}`);
      const view = this.view;
      while (view.volumes.length) view.removeVolumeByIndex(view.volumes.length - 1);
      await view.loadFromArrayBuffer(buffer(files.scan), "scan.nii.gz");
      for (const [k, text] of files.overlays.entries()) {
        await view.loadFromArrayBuffer(buffer(text), `overlay${k}.nii.gz`);
        const volume = view.volumes[k + 1];
        // heat: 1 to 255 on its scale; a mask: its rim, 3, is solid and its inside, 1, below the least value, faint
        const drawn = this.about.overlays[k].heat ? { cal_min: 0, cal_max: 255 }
          : { cal_min: 3, cal_max: 3.01, colormapType: 2 };
        volume.colormap = this.colour(k); // sets limits of its own
        Object.assign(volume, drawn);
      }
      this.case = this.about.cases[n];
      this.stack.max = this.case.slices - 1;
      const [, y, x] = this.case.mm;
      this.made = `pixels of ${y} × ${x} mm; the patient’s right is on the left`;
      if (this.centre.value) this.level(this.centre.value, this.width.value);
      this.cover();
      this.go(this.case.first);
    }

    go(slice) {
      this.slice = Math.max(0, Math.min(this.case.slices - 1, slice));
      this.stack.value = this.slice;
      this.view.scene.crosshairPos[2] = (this.slice + 0.5) / this.case.slices;
      this.view.drawScene();
      const words = `Slice ${this.slice + 1} of ${this.case.slices} from below, ${this.case.mm[0]} mm apart; ${this.made}`;
      this.place.textContent = words;
      this.stack.setAttribute("aria-valuetext", words);
      this.screen.setAttribute("aria-label", `${this.case.label}. ${words}. Arrow keys change the slice.`);
    }

    level(level, width) {
      const [least, most] = this.about.range;
      const within = (value, low, high) => Math.max(low, Math.min(high, Number(value) || 0));
      this.centre.value = within(level, least, most);
      this.width.value = within(width, 1, most - least);
      const half = this.width.value / 2;
      for (const scan of this.view.volumes.slice(0, 1)) {
        scan.cal_min = Number(this.centre.value) - half;
        scan.cal_max = Number(this.centre.value) + half;
      }
      for (const button of this.presets) {
        button.setAttribute("aria-pressed", button.window === `${this.centre.value}/${this.width.value}`);
      }
      this.renew();
    }

    cover() {
      for (const [n, { on, strength }] of this.shown.entries()) {
        strength.disabled = !on.checked;
        const volume = this.view.volumes[n + 1];
        if (volume) volume.opacity = on.checked ? Number(strength.value) : 0; // none while the next scan is read
      }
      this.renew();
    }
  }

  function prepare(figure, name) {
    const picture = figure.querySelector("img");
    const caption = figure.querySelector("figcaption");
    if (!picture || !window.WebGL2RenderingContext) return;
    const button = make("button", { type: "button", class: "he-open" }, "Open the scans");
    const said = make("span", { class: "he-said", role: "status" });
    const bar = make("div", { class: "he-bar" }, button, said);
    figure.insertBefore(bar, caption);
    let viewer = null;
    const turn = (open) => {
      figure.classList.toggle("he-opened", open);
      button.textContent = open ? "Back to the picture" : "Open the scans";
    };
    button.addEventListener("click", async () => {
      if (figure.classList.contains("he-opened")) {
        turn(false);
        return;
      }
      button.disabled = true;
      try {
        if (!viewer) {
          said.textContent = "Loading …";
          if (!make("canvas").getContext("webgl2")) throw new Error("this browser has no WebGL 2");
          await Promise.all([load("niivue.js"), content(`${name}/index`)]);
          const opened = new Viewer(name, arrived.get(`${name}/index`));
          figure.insertBefore(opened.box, bar);
          turn(true); // the canvas needs its size
          try {
            await opened.start();
          } catch (error) {
            opened.box.remove();
            throw error;
          }
          viewer = opened;
        }
        turn(true);
        said.textContent = "";
        viewer.view.resizeListener();
        viewer.screen.focus({ preventScroll: true });
      } catch (error) {
        turn(false);
        said.textContent = `The scans cannot be opened here: ${error.message}.`;
      }
      button.disabled = false;
    });
  }

  function begin() {
    for (const marked of document.querySelectorAll('figure[class*="viewer-"], div[class^="viewer-"]')) {
      const name = [...marked.classList].find((one) => one.startsWith("viewer-"));
      const figure = marked.matches("figure") ? marked : marked.querySelector("figure");
      if (name && figure) prepare(figure, name.slice("viewer-".length));
    }
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
  else begin();
})();
