"use strict";
// Every update carries the parts of the page as the server renders them; a part that has not changed is left alone,
// so that selections and scroll positions stay.
(() => {
  const body = document.body;
  const state = document.getElementById("state");
  const stateText = document.getElementById("state-text");
  const shown = new Map();

  const say = (name, text) => {
    if (state.dataset.state !== name) {
      state.dataset.state = name;
      stateText.textContent = text;
    }
  };

  const source = new EventSource(body.dataset.stream);
  source.addEventListener("open", () => say("live", "Live"));
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) {
      // Refused, not interrupted: the session has ended or the service is starting. Loading the page tells which.
      say("lost", "Signed out");
      window.setTimeout(() => window.location.reload(), 1500);
    } else {
      say("connecting", "Reconnecting");
    }
  });
  source.addEventListener("board", (event) => {
    say("live", "Live");
    for (const [id, html] of Object.entries(JSON.parse(event.data))) {
      if (shown.get(id) !== html) {
        shown.set(id, html);
        document.getElementById(id).innerHTML = html;
      }
    }
  });
})();
