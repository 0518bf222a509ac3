// Makes pages refresh themselves and tell local times; everything works without it.
"use strict";
(() => {
  const periodMs = Number(document.body.dataset.refreshS) * 1000;
  const pause = document.getElementById("pause");
  const note = document.getElementById("refresh-note");
  const age = document.getElementById("age");
  if (!age) return;
  const stored = { get: () => { try { return localStorage.getItem("paused"); } catch { return null; } },
                   set: (value) => { try { localStorage.setItem("paused", value); } catch { /* private mode */ } } };
  let paused = stored.get() === "yes";
  let nextAt = Date.now() + periodMs;
  // the difference of the two clocks, so that a wrong clock here makes no wrong age
  let ageAtLoad = parseInt(age.textContent, 10) || 0;
  let loadedAt = Date.now();

  const inWords = (seconds) => seconds < 90 ? `${seconds} s` : seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;

  function localTimes(root) {
    for (const time of root.querySelectorAll("time")) {
      const when = new Date(time.dateTime);
      if (isNaN(when)) continue;
      time.dataset.local = when.toLocaleString(undefined, { timeZoneName: "short" });
      const away = Math.round((Date.now() - when) / 1000);
      time.title = `${time.dataset.local} (${away >= 0 ? inWords(away) + " ago" : "in " + inWords(-away)})`;
    }
  }

  function showAge() {
    const seconds = ageAtLoad + Math.round((Date.now() - loadedAt) / 1000);
    age.textContent = `${inWords(seconds)}`;
    age.nextSibling.textContent = " old ";
    age.closest(".freshness").classList.toggle("old", seconds * 1000 > 4 * periodMs);
  }

  function showPause() {
    pause.hidden = false;
    pause.textContent = paused ? "Refresh again" : "Pause";
    pause.setAttribute("aria-pressed", String(paused));
  }

  function busy() {
    const active = document.activeElement;
    const selection = String(getSelection());
    return document.hidden || selection !== "" || (active && active.closest("main form"));
  }

  function exchange(fresh) {
    const main = document.getElementById("main");
    const places = [...main.querySelectorAll(".scroll, .log, ul")].map((box) => [box.scrollLeft, box.scrollTop]);
    const open = new Set([...main.querySelectorAll("details[open]")].map((details) => details.id));
    const focused = document.activeElement && main.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    main.replaceChildren(...fresh.childNodes);
    for (const details of main.querySelectorAll("details")) details.open = open.has(details.id);
    [...main.querySelectorAll(".scroll, .log, ul")].forEach((box, i) => { if (places[i]) [box.scrollLeft, box.scrollTop] = places[i]; });
    if (focused) {
      const again = [...main.querySelectorAll("a")].find((a) => a.getAttribute("href") === focused);
      if (again) again.focus({ preventScroll: true });
    }
    localTimes(main);
  }

  async function refresh() {
    nextAt = Date.now() + periodMs;
    try {
      const answer = await fetch(location.href, { cache: "no-cache", credentials: "same-origin" });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const main = page.getElementById("main");
      if (!answer.ok || !main) throw new Error(`answer ${answer.status}`);
      const old = document.getElementById("made-at"), young = page.getElementById("made-at");
      if (old.dateTime !== young.dateTime) {
        exchange(main);
        old.dateTime = young.dateTime;
        old.textContent = young.textContent;
        ageAtLoad = parseInt(page.getElementById("age").textContent, 10) || 0;
        loadedAt = Date.now();
      }
      note.textContent = "";
    } catch (error) {
      note.textContent = `The last refresh failed: ${error.message}`;
    }
  }

  pause.addEventListener("click", () => {
    paused = !paused;
    stored.set(paused ? "yes" : "no");
    showPause();
    if (!paused) refresh();
  });
  setInterval(() => {
    showAge();
    if (!paused && Date.now() >= nextAt && !busy()) refresh();
  }, 1000);
  const here = document.querySelector("nav [aria-current]");
  if (here) here.closest("nav").scrollLeft = here.offsetLeft - 40;
  localTimes(document);
  showAge();
  showPause();
})();
