"use strict";
// Switch the pictures without a mouse: with the key f, or automatically with a button.
const views = [...document.querySelectorAll('input[name="comparison"]')];
const button = document.getElementById("flicker");
const change = () => { views[views[0].checked ? 1 : 0].checked = true; };
// Open all details before printing.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(d => { d.open = true; }));
let running = null;
const flicker = on => {
  clearInterval(running);
  running = on ? setInterval(change, 700) : null;
  button.setAttribute("aria-pressed", String(on));
};
if (views.length > 1) {
  button.hidden = false;
  button.addEventListener("click", () => flicker(running === null));
  document.addEventListener("keydown", event => {
    if (event.key === "f" && !event.ctrlKey && !event.metaKey && !event.altKey) change();
  });
}
