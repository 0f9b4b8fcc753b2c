// The probabilities of the classes as bars: the server's, and the browser's below where it has an answer.

import { $, make, percent } from "./dom.js";

export class Classes {
  #rows = [];

  show(names, server, browser) {
    if (this.#rows.length !== names.length || this.#rows.some(({ name }, i) => name.textContent !== names[i])) {
      this.#build(names);
    }
    $("classes").classList.toggle("twice", Boolean(browser));
    const best = server ? server.indexOf(Math.max(...server)) : -1;
    this.#rows.forEach((row, i) => {
      row.item.classList.toggle("best", i === best);
      row.bar.style.width = `${100 * (server?.[i] ?? 0)}%`;
      row.share.textContent = server ? percent(server[i]) : "";
      row.second.hidden = row.secondShare.hidden = !browser;
      row.secondBar.style.width = `${100 * (browser?.[i] ?? 0)}%`;
      row.secondShare.textContent = browser ? percent(browser[i]) : "";
    });
    return best;
  }

  #build(names) {
    this.#rows = names.map((text) => {
      const name = make("span", { class: "name", title: text }, text);
      const [bar, secondBar] = [make("i"), make("i")];
      const [share, secondShare] = [make("span"), make("span")];
      const second = make("div", { class: "track browser" }, secondBar);
      const tracks = make("div", { class: "tracks", "aria-hidden": "true" }, make("div", { class: "track" }, bar), second);
      const item = make("li", {}, name, tracks, make("div", { class: "share" }, share, secondShare));
      return { item, name, bar, share, second, secondBar, secondShare };
    });
    $("classes").replaceChildren(...this.#rows.map(({ item }) => item));
  }
}
