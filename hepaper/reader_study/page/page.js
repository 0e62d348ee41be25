"use strict";

/* The reader's page: shows one image at a time, keeps every answer in the browser's own storage, and writes the CSV
   that `hepaper reader-study collect` reads. It makes no request to any network. */

const study = JSON.parse(document.getElementById("study").textContent);
const QUESTIONS = study.questions; // quality, authenticity, called
const FIELDS = QUESTIONS.map((question) => question.field);
const IDLE_SECONDS = 180;
const UNDO_STEPS = 100;
const $ = (id) => document.getElementById(id);

let state = null; // {reader, place, answers: {code: {quality, authenticity, called, seconds}}, undo: [{code, field, before}]}
let order = []; // this reader's own order of the images
let current = 0; // the question that the number keys answer
let shownAt = 0; // when the clock of the shown image was last read, ms; 0: it stands
let touchedAt = 0;
let storing = true;

/* ---------------------------------------------------------------- order */

/** FNV-1a with a finaliser that spreads every bit: a number that looks random but is the same on every computer. */
function hash(text) {
  let value = 0x811c9dc5;
  for (const letter of text) value = Math.imul(value ^ letter.codePointAt(0), 0x01000193);
  value = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
  value = Math.imul(value ^ (value >>> 13), 0xc2b2ae35);
  return (value ^ (value >>> 16)) >>> 0;
}

/** The images in the order of one reader, so that no image is late, or after another, for all readers. */
function orderFor(reader) {
  const keyed = study.images.map((image) => [hash(`${study.study}|${reader}|${image.code}`), image]);
  keyed.sort((a, b) => a[0] - b[0] || (a[1].code < b[1].code ? -1 : 1));
  return keyed.map((pair) => pair[1]);
}

/* ---------------------------------------------------------------- storage */

const storeName = (reader) => `hepaper-reader-study:${study.study}:${reader}`;

function stored(reader) {
  try {
    return JSON.parse(localStorage.getItem(storeName(reader)));
  } catch {
    return null;
  }
}

function store() {
  if (!state || !storing) return;
  try {
    localStorage.setItem(storeName(state.reader), JSON.stringify(state));
    localStorage.setItem(`hepaper-reader-study:${study.study}`, state.reader);
  } catch {
    warn("This browser does not let the page save. Finish in one sitting, and save a copy from time to time.");
  }
}

function warn(text) {
  $("warning").textContent = text;
  $("warning").hidden = false;
}

/* ---------------------------------------------------------------- answers */

const blank = () => Object.fromEntries([...FIELDS.map((field) => [field, null]), ["seconds", 0]]);
const shown = () => order[state.place];

function answerOf(code) {
  state.answers[code] ??= blank();
  return state.answers[code];
}

const isComplete = (answer) => Boolean(answer) && FIELDS.every((field) => answer[field] !== null);
const rated = () => order.filter((image) => isComplete(state.answers[image.code])).length;

function choose(field, value) {
  const code = shown().code;
  const answer = answerOf(code);
  if (answer[field] !== value) {
    state.undo.push({ code, field, before: answer[field] });
    state.undo.splice(0, state.undo.length - UNDO_STEPS);
    answer[field] = value;
  }
  current = QUESTIONS.findIndex((question) => answer[question.field] === null);
  if (current < 0) current = FIELDS.indexOf(field);
  tick();
  store();
  drawAnswers();
  reveal();
}

function undo() {
  const last = state.undo.pop();
  if (!last) return;
  tick();
  answerOf(last.code)[last.field] = last.before;
  const place = order.findIndex((image) => image.code === last.code);
  if (!$("finish").hidden || place !== state.place) show(place);
  current = FIELDS.indexOf(last.field);
  store();
  drawAnswers();
  reveal();
}

function go(step) {
  const to = state.place + step;
  if (to < 0 || (step > 0 && !isComplete(state.answers[shown().code]))) return;
  tick();
  if (to < order.length) show(to);
  else finish();
}

/* ---------------------------------------------------------------- the clock */

/** Add the time since the last reading to the image on the screen. */
function tick() {
  const now = performance.now();
  if (shownAt && state) answerOf(shown().code).seconds += (now - shownAt) / 1000;
  if (shownAt) shownAt = now;
}

function stopClock() {
  tick();
  shownAt = 0;
}

function startClock() {
  touchedAt = performance.now();
  shownAt = document.hidden || !$("paused").hidden || $("rate").hidden ? 0 : touchedAt;
}

setInterval(() => {
  if (!shownAt) return;
  const idle = (performance.now() - touchedAt) / 1000;
  tick();
  if (idle > IDLE_SECONDS) {
    const answer = answerOf(shown().code);
    answer.seconds = Math.max(0, answer.seconds - idle); // nobody was there
    pause(`No key or mouse for ${IDLE_SECONDS / 60} minutes. The time is not counted.`);
  }
  store();
}, 5000);

/* ---------------------------------------------------------------- drawing */

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function build() {
  document.title = study.title;
  $("title").textContent = study.title;
  $("count").textContent = study.images.length;
  for (const [number, question] of QUESTIONS.entries()) {
    const head = element("h2", { id: `q-${question.field}` }, question.title);
    const hint = element("p", { class: "hint", id: `h-${question.field}` }, question.hint);
    const options = element("div", {
      class: question.options.length === 2 ? "options two" : "options",
      role: "group",
      "aria-labelledby": head.id,
      "aria-describedby": hint.id,
    });
    for (const option of question.options) {
      const button = element(
        "button",
        { type: "button", "aria-pressed": "false", "data-field": question.field, "data-value": option.value },
        element("b", {}, option.key),
        element("span", { class: "word" }, option.word),
        element("span", { class: "what" }, option.what),
      );
      button.addEventListener("click", () => choose(question.field, option.value));
      button.addEventListener("pointerenter", () => describe(question, option));
      button.addEventListener("focus", () => describe(question, option));
      button.addEventListener("pointerleave", () => describe(question));
      button.addEventListener("blur", () => describe(question));
      options.append(button);
    }
    const chosen = element("p", { class: "chosen", id: `c-${question.field}` });
    const parts = [head, hint, options, ...(question.options.length === 2 ? [] : [chosen])];
    const section = element("section", { class: "question", "data-question": number }, ...parts);
    section.addEventListener("focusin", () => highlight(number));
    $("questions").append(section);
    if (question.options.length > 2) $("criteria").append(criteria(question));
  }
}

function criteria(question) {
  const list = element("ol");
  for (const option of question.options) {
    const words = element("span", {}, element("em", {}, option.word), ` – ${option.what}`);
    list.append(element("li", {}, element("b", {}, option.key), words));
  }
  const head = element("h3", {}, question.title);
  return element("section", {}, head, element("p", { class: "hint" }, question.hint), list);
}

function highlight(number) {
  current = number;
  for (const section of document.querySelectorAll(".question"))
    section.classList.toggle("current", Number(section.dataset.question) === current);
}

/** Scroll the current question into view; never while a pointer is down on it. */
function reveal() {
  document.querySelector(".question.current").scrollIntoView({ block: "nearest" });
}

/** The criterion of an option, else of the chosen one, else both ends: where the window has no room for all. */
function describe(question, option) {
  if (question.options.length === 2 || !state) return;
  const value = answerOf(shown().code)[question.field];
  const told = option ?? question.options.find((one) => one.value === value);
  const ends = [question.options[0], question.options[question.options.length - 1]];
  $(`c-${question.field}`).textContent = told
    ? `${told.word}: ${told.what}`
    : ends.map((one) => `${one.key}: ${one.what}`).join("  ·  ");
}

function only(id) {
  for (const other of ["start", "rate", "finish"]) $(other).hidden = other !== id;
}

function show(place) {
  stopClock();
  state.place = place;
  only("rate");
  const image = shown();
  $("image").src = `data:image/png;base64,${image.png}`;
  $("image").alt = `CT image ${image.code}`;
  const first = QUESTIONS.findIndex((question) => answerOf(image.code)[question.field] === null);
  current = Math.max(first, 0);
  // a press of Enter or Space on the new image must not repeat an answer of the last one
  if (document.activeElement instanceof HTMLElement && $("questions").contains(document.activeElement))
    document.activeElement.blur();
  $("questions").scrollTop = 0;
  window.scrollTo(0, 0);
  startClock();
  store();
  drawAnswers();
}

function drawAnswers() {
  const image = shown();
  const answer = answerOf(image.code);
  const done = rated();
  $("position").textContent = `Image ${state.place + 1} of ${order.length}`;
  $("code").textContent = image.code;
  $("bar").setAttribute("aria-valuemax", order.length);
  $("bar").setAttribute("aria-valuenow", done);
  $("bar").title = `${done} of ${order.length} rated`;
  $("fill").style.width = `${(100 * done) / order.length}%`;
  for (const button of document.querySelectorAll("[data-field]")) {
    const pressed = String(answer[button.dataset.field]) === button.dataset.value;
    button.setAttribute("aria-pressed", String(pressed));
  }
  for (const question of QUESTIONS) describe(question);
  const missing = QUESTIONS.filter((question) => answer[question.field] === null).length;
  $("missing").textContent = missing ? `${missing} to answer` : "";
  $("next").disabled = missing > 0;
  $("next").textContent = state.place + 1 === order.length ? "Finish" : "Next";
  $("back").disabled = state.place === 0;
  $("undo").disabled = state.undo.length === 0;
  highlight(current);
}

function finish() {
  const open = order.findIndex((image) => !isComplete(state.answers[image.code]));
  if (open >= 0) {
    show(open);
    return;
  }
  stopClock();
  store();
  only("finish");
  const minutes = order.reduce((sum, image) => sum + answerOf(image.code).seconds, 0) / 60;
  const spent = minutes < 1 ? "in less than a minute" : `in about ${Math.round(minutes)} min`;
  $("summary").textContent = `Reader ${state.reader}: ${order.length} images ${spent}. Thank you.`;
  $("export").focus();
}

function pause(reason = "The clock stands and the image is hidden. Your answers are saved.") {
  if (!state || $("rate").hidden || !$("paused").hidden) return;
  stopClock();
  store();
  $("paused-text").textContent = reason;
  $("paused").hidden = false;
  $("rate").inert = true;
  $("resume").focus();
}

function resume() {
  if (!storing) {
    // another window has gone on with these ratings: take up what it saved
    storing = true;
    state = stored(state.reader) ?? state;
  }
  closePause();
  show(state.place);
}

function closePause() {
  $("paused").hidden = true;
  $("rate").inert = false;
}

function leave() {
  store();
  closePause();
  state = null;
  only("start");
  $("reader").focus();
}

/* ---------------------------------------------------------------- start */

const readerCode = (text) => text.trim().toUpperCase();

function readerProblem(reader) {
  if (!/^[A-Z0-9]{1,12}$/.test(reader)) return "Please use 1 to 12 letters or digits.";
  if (reader.startsWith("SIM")) return "Codes that begin with SIM are kept for simulated readers. Please use another.";
  return "";
}

function begin(reader) {
  order = orderFor(reader);
  storing = true;
  state = stored(reader) ?? { reader, place: 0, answers: {}, undo: [] };
  const open = order.findIndex((image) => !isComplete(state.answers[image.code]));
  if (open < 0) finish();
  else show(open);
}

/* ---------------------------------------------------------------- CSV */

const COLUMNS = ["study", "reader", "code", "order", ...FIELDS, "seconds"];

/** One line an image that has an answer, in the order the reader saw them. */
function csv() {
  const lines = [COLUMNS.join(",")];
  order.forEach((image, number) => {
    const answer = state.answers[image.code];
    if (!answer || FIELDS.every((field) => answer[field] === null)) return;
    const values = FIELDS.map((field) => answer[field] ?? "");
    lines.push([study.study, state.reader, image.code, number + 1, ...values, answer.seconds.toFixed(1)].join(","));
  });
  return lines.join("\r\n") + "\r\n";
}

function download() {
  tick();
  const url = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
  const part = rated() === order.length ? "" : `_${rated()}-of-${order.length}`;
  const name = `ratings_${study.study.slice(0, 6)}_${state.reader}${part}.csv`;
  const link = element("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
  return name;
}

/** The state that a saved file holds; throws an Error whose message the reader can act on. */
function parsed(text) {
  const [head, ...lines] = text.replace(/^\uFEFF/, "").split(/\r?\n/).filter((line) => line.trim());
  const comma = (head ?? "").includes(";") ? ";" : ",";
  if ((head ?? "").split(comma).join() !== COLUMNS.join()) throw new Error("This is not a ratings file of this page.");
  const answers = {};
  const codes = new Set(study.images.map((image) => image.code));
  let reader = "";
  for (const line of lines) {
    const row = Object.fromEntries(line.split(comma).map((value, number) => [COLUMNS[number], value]));
    if (row.study !== study.study) throw new Error("The file belongs to another study.");
    reader ||= row.reader;
    if (row.reader !== reader || readerProblem(reader) || !codes.has(row.code)) throw new Error("The file was changed.");
    const answer = blank();
    for (const question of QUESTIONS) {
      const option = question.options.find((one) => String(one.value) === row[question.field]);
      if (!option && row[question.field]) throw new Error("The file was changed.");
      answer[question.field] = option ? option.value : null;
    }
    answer.seconds = Math.max(0, Number(row.seconds)) || 0;
    answers[row.code] = answer;
  }
  if (!reader) throw new Error("The file holds no ratings.");
  return { reader, place: 0, answers, undo: [] };
}

async function restore(file) {
  try {
    const found = parsed(await file.text());
    const held = stored(found.reader);
    const count = (answers) => Object.values(answers).filter(isComplete).length;
    if (held && count(held.answers) > count(found.answers))
      throw new Error(`This browser already holds more ratings of reader ${found.reader}; it keeps those.`);
    localStorage.setItem(storeName(found.reader), JSON.stringify(found));
    $("reader").value = found.reader;
    $("restore-note").textContent = `${count(found.answers)} ratings of reader ${found.reader} are back. Press Start.`;
  } catch (problem) {
    $("restore-note").textContent = problem.message;
  }
}

/* ---------------------------------------------------------------- events */

function key(event) {
  touchedAt = performance.now();
  if (event.ctrlKey || event.metaKey || event.altKey || !$("paused").hidden) return;
  const name = event.key.toLowerCase();
  if (!$("finish").hidden) {
    if (name === "arrowleft") show(order.length - 1);
    if (name === "u") undo();
    return;
  }
  if ($("rate").hidden || event.repeat) return;
  const question = QUESTIONS.find((one) => one.options.some((option) => option.key.toLowerCase() === name && option.letter));
  if (question) {
    choose(question.field, question.options.find((option) => option.key.toLowerCase() === name).value);
  } else if (/^[1-5]$/.test(name)) {
    const scale = QUESTIONS[current].options.length === 2 ? null : QUESTIONS[current];
    if (scale) choose(scale.field, Number(name));
  } else if (name === "arrowup" || name === "arrowdown") {
    highlight((current + (name === "arrowup" ? QUESTIONS.length - 1 : 1)) % QUESTIONS.length);
    reveal();
  } else if (name === "arrowright") go(1);
  else if (name === "arrowleft") go(-1);
  else if (name === "u") undo();
  else if (name === "p") pause();
  else return;
  event.preventDefault();
}

function listen() {
  $("enter").addEventListener("submit", (event) => {
    event.preventDefault();
    const reader = readerCode($("reader").value);
    $("reader-error").textContent = readerProblem(reader);
    if (!readerProblem(reader)) begin(reader);
  });
  $("restore").addEventListener("change", (event) => event.target.files[0] && restore(event.target.files[0]));
  $("next").addEventListener("click", () => go(1));
  $("back").addEventListener("click", () => go(-1));
  $("undo").addEventListener("click", undo);
  $("pause").addEventListener("click", () => pause());
  $("resume").addEventListener("click", resume);
  $("leave").addEventListener("click", leave);
  $("save").addEventListener("click", download);
  $("export").addEventListener("click", () => {
    $("exported").textContent = `Saved as ${download()} in your downloads. Please hand it to the study team.`;
  });
  $("review").addEventListener("click", () => show(order.length - 1));
  document.addEventListener("keydown", key);
  document.addEventListener("pointermove", () => (touchedAt = performance.now()));
  document.addEventListener("pointerdown", () => (touchedAt = performance.now()));
  document.addEventListener("visibilitychange", () => {
    if (!state || $("rate").hidden) return;
    if (document.hidden) {
      stopClock();
      store();
    } else startClock();
  });
  window.addEventListener("pagehide", () => {
    tick();
    store();
  });
  window.addEventListener("storage", (event) => {
    if (!state || event.key !== storeName(state.reader) || !storing) return;
    // two windows that both save would overwrite each other
    storing = false;
    if ($("rate").hidden) leave();
    else pause("These ratings were opened in another window. Continue here?");
  });
}

build();
listen();
try {
  $("reader").value = localStorage.getItem(`hepaper-reader-study:${study.study}`) ?? "";
  localStorage.setItem("hepaper-reader-study", "1");
} catch {
  warn("This browser does not let the page save. Finish in one sitting, and save a copy from time to time.");
}
