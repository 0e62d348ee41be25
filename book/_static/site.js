// Fills the switcher of versions from versions.js at the site's root, which newer versions renew; this file stays
// with its book. Without scripts, or without that file, the plain link to the start page remains.
(function () {
  "use strict";
  const nav = document.querySelector("nav.versions");
  const all = window.hepaperVersions;
  if (!nav || !Array.isArray(all) || !all.length) return;
  const here = nav.dataset;
  const isHere = (book) => book.version === here.version && book.study === here.study;

  const make = (tag, text, parent) => {
    const made = document.createElement(tag);
    if (text) made.textContent = text;
    if (parent) parent.appendChild(made);
    return made;
  };
  // the same page where the other version has it, else its front page
  const address = (book) => {
    const page = Array.isArray(book.pages) && book.pages.includes(here.page) ? here.page : "index.html";
    return here.root + [book.version, book.study, ...page.split("/")].map(encodeURIComponent).join("/");
  };

  const box = make("details");
  const summary = make("summary", "Version " + here.version + ", " + here.study, box);
  // the newest version comes first in the list
  const newest = all.find((book) => book.study === here.study);
  if (newest && all.indexOf(newest) < all.findIndex(isHere)) {
    make("span", "there is a newer one: " + newest.version, summary).className = "newer";
  }
  const choices = make("div", "", box);
  choices.className = "choices";
  let version = null;
  let list = null;
  for (const book of all) {
    if (book.version !== version) {
      version = book.version;
      make("p", "Version " + version, choices);
      list = make("ul", "", choices);
    }
    const link = make("a", book.study + " ", make("li", "", list));
    make("small", book.date || "", link);
    link.href = address(book);
    if (isHere(book)) link.setAttribute("aria-current", "page");
  }
  const start = make("a", "All versions and comparisons", make("p", "", choices));
  start.href = here.root + "index.html";
  nav.replaceChildren(box);

  // a page that is being read closes the list with Escape, as menus do
  box.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && box.open) {
      box.open = false;
      summary.focus();
    }
  });
  const sidebar = document.querySelector(".sidebar-primary-items__start");
  if (sidebar) {
    const item = make("div");
    item.className = "sidebar-primary-item versions-item";
    item.appendChild(nav);
    sidebar.insertBefore(item, sidebar.children[1] || null);
  }
})();
