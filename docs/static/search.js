/* Ranks the entries of searchsections.js for Sphinx's search page: see docs/search.py. */
"use strict";

const Sections = {
  index: null,
  set: (index) => { Sections.index = index; },

  /* the entries that hold the query's words, the best first, as Sphinx lists results */
  find: (query) => {
    const { docs, terms } = Sections.index;
    const stemmer = new Stemmer();
    const scores = new Map();
    const words = (query.toLowerCase().match(/[\p{L}\p{N}_]+/gu) || [])
      .filter((word) => !stopwords.has(word)).map((word) => stemmer.stemWord(word));
    for (const word of new Set(words)) {
      let lists = Object.hasOwn(terms, word) ? [[1, terms[word]]] : [];
      if (!lists.length && word.length > 2) // the beginning of a word, as one types
        lists = Object.keys(terms).filter((term) => term.startsWith(word)).map((term) => [0.5, terms[term]]);
      for (const [weight, list] of lists)
        for (let i = 0; i < list.length; i += 2)
          scores.set(list[i], (scores.get(list[i]) || 0) + weight * list[i + 1]);
    }
    // a name, typed in full, is what was looked for
    const name = query.trim().toLowerCase();
    for (const [i, score] of scores) {
      const own = docs[i][1].split(" > ").pop().toLowerCase();
      if (docs[i][3] === "object" && (own === name || own.endsWith(`.${name}`))) scores.set(i, score + 100000);
    }
    return [...scores].sort((a, b) => b[1] - a[1] || a[0] - b[0]).slice(0, 50).map(([i, score]) => {
      const [docname, title, anchor, kind, begins] = docs[i];
      return [docname, title, anchor ? `#${anchor}` : "", begins ? `${begins} ...` : null, score, docname, kind];
    });
  },
};

/* before the page's own listener searches; Sphinx shows the last of a list first */
if (typeof document !== "undefined")
  document.addEventListener("DOMContentLoaded", () => {
    Search._performSearch = (query) => {
      _removeChildren(document.getElementById("search-progress"));
      return Sections.find(query).reverse();
    };
  });
