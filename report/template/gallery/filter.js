"use strict";
(() => {
  const form = document.getElementById("filters");
  const shown = document.getElementById("shown");
  const cards = [...document.querySelectorAll(".cards > li")];
  const names = [...form.elements].filter((field) => field.name).map((field) => field.name);

  const fits = (card, wanted) => {
    const told = card.dataset;
    const confidence = Number(told.confidence);
    return (!wanted.experiment || told.experiment === wanted.experiment)
      && (!wanted.class || told.label === wanted.class || told.prediction === wanted.class)
      && (!wanted.verdict || told.verdict === wanted.verdict)
      && confidence >= (wanted.least === "" ? 0 : Number(wanted.least))
      && confidence <= (wanted.most === "" ? 100 : Number(wanted.most));
  };

  const update = () => {
    const wanted = Object.fromEntries(names.map((name) => [name, form.elements[name].value]));
    let count = 0;
    for (const card of cards) {
      card.hidden = !fits(card, wanted);
      count += card.hidden ? 0 : 1;
    }
    shown.textContent = `${count} of ${cards.length} images shown`;
    const chosen = names.filter((name) => wanted[name] !== form.elements[name].dataset.all);
    const kept = new URLSearchParams(chosen.map((name) => [name, wanted[name]])).toString();
    history.replaceState(null, "", kept ? `#${kept}` : location.pathname);
  };

  const restore = () => {
    for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
      if (names.includes(name)) form.elements[name].value = value;
    }
    update();
  };

  for (const name of names) form.elements[name].dataset.all = form.elements[name].value;
  form.addEventListener("input", update);
  form.addEventListener("reset", () => setTimeout(update));
  form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", restore);
  form.hidden = false;
  restore();
})();
