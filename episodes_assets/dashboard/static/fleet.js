// Keeps the Fleet page current: the server renders it, this only puts it in place.
"use strict";

(() => {
  const EVERY_MS = 2000;
  const PATIENCE_MS = 10000;
  const live = document.getElementById("live");
  const status = document.getElementById("live-status");
  let timer;
  let lostAt = null;

  // A notice is about what was just done, not about each later reload.
  if (location.search) history.replaceState(null, "", location.pathname);

  function say(text, isBad = false) {
    if (status.textContent !== text) status.textContent = text;
    status.classList.toggle("bad", isBad);
  }

  // Nothing is pulled from under a pointer, or out of a selection that is about to be copied.
  function isBusy() {
    const selection = getSelection();
    return (
      live.querySelector(":active") !== null ||
      (!selection.isCollapsed && live.contains(selection.anchorNode))
    );
  }

  function replace(html) {
    const focused = live.contains(document.activeElement) ? document.activeElement.id : "";
    const open = new Map();
    for (const each of live.querySelectorAll("details[open]")) {
      const trace = each.querySelector("pre");
      open.set(each.id, trace ? [trace.scrollLeft, trace.scrollTop] : [0, 0]);
    }
    const table = live.querySelector(".scroll");
    const left = table ? table.scrollLeft : 0;
    live.innerHTML = html;
    for (const [id, [x, y]] of open) {
      const each = document.getElementById(id);
      if (!each) continue;
      each.open = true;
      const trace = each.querySelector("pre");
      if (trace) trace.scrollTo(x, y);
    }
    const tableNow = live.querySelector(".scroll");
    if (tableNow) tableNow.scrollLeft = left;
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  }

  async function refresh() {
    const answer = await fetch(live.dataset.source, {
      headers: { Accept: "text/html" },
      redirect: "error",
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    if (answer.status === 401 || answer.status === 403) {
      location.reload(); // the session is over: to the login
      return;
    }
    const text = await answer.text();
    if (!answer.ok) throw new Error(answer.headers.get("content-type")?.startsWith("text/plain") ? text : "");
    if (isBusy()) {
      say("Paused while you select");
    } else {
      replace(text);
      say("Live");
    }
    lostAt = null;
  }

  async function beat() {
    clearTimeout(timer);
    if (document.hidden) return;
    try {
      await refresh();
    } catch (error) {
      lostAt ??= new Date();
      const why = error instanceof TypeError || error.name === "TimeoutError" ? "" : error.message;
      say(`Not current since ${lostAt.toLocaleTimeString()}: ${why || "the dashboard does not answer"}`, true);
    }
    clearTimeout(timer);
    timer = setTimeout(beat, EVERY_MS);
  }

  document.addEventListener("visibilitychange", beat);
  say("Live");
  timer = setTimeout(beat, EVERY_MS);
})();
