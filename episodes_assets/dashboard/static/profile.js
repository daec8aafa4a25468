// Lets the flame graph be looked at more closely: a box that is selected becomes as wide as the page.
"use strict";

(() => {
  const svg = document.querySelector("#flame svg");
  if (!svg) return;
  const WIDTH = svg.viewBox.baseVal.width;
  const LETTER = 6.7;
  const about = document.getElementById("about-box");
  const boxes = [...svg.querySelectorAll("g")].map((node) => ({
    node,
    rect: node.querySelector("rect"),
    text: node.querySelector("text"),
    told: node.querySelector("title").textContent,
    first: Number(node.dataset.first),
    samples: Number(node.dataset.samples),
    depth: Number(node.querySelector("rect").getAttribute("y")),
  }));
  const all = { first: 0, samples: Math.max(...boxes.map((box) => box.first + box.samples)), depth: -1 };

  function show(chosen) {
    const scale = WIDTH / chosen.samples;
    const end = chosen.first + chosen.samples;
    for (const box of boxes) {
      const first = Math.max(box.first, chosen.first);
      const samples = Math.min(box.first + box.samples, end) - first;
      box.node.classList.toggle("away", samples <= 0);
      if (samples <= 0) continue;
      const x = (first - chosen.first) * scale;
      const width = samples * scale;
      const name = box.told.split("\n")[0];
      const letters = Math.trunc((width - 6) / LETTER);
      box.rect.setAttribute("x", x);
      box.rect.setAttribute("width", Math.max(width - 0.5, 0.2));
      box.text.setAttribute("x", x + 3);
      box.text.textContent = name.length <= letters ? name : letters > 2 ? `${name.slice(0, letters - 1)}…` : "";
    }
  }

  let chosen = all;
  function choose(box) {
    chosen = box === chosen || box.depth === 0 ? all : box;
    show(chosen);
  }

  for (const box of boxes) {
    box.node.setAttribute("tabindex", "0");
    box.node.setAttribute("role", "button");
    box.node.addEventListener("click", () => choose(box));
    box.node.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        choose(box);
      }
    });
    for (const kind of ["pointerenter", "focus"]) {
      box.node.addEventListener(kind, () => (about.textContent = box.told.replace("\n", ": ")));
    }
  }
})();
