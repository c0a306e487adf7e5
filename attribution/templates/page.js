"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const named = (code) => data.names[code] || code;

function options(select, values, label) {
  select.replaceChildren(...values.map((value) => {
    const option = document.createElement("option");
    option.value = value;
    option.textContent = label(value);
    return option;
  }));
}

// Text is set, never parsed; dir="auto" lets each sentence run in the direction of its own script.
function written(element, text, language) {
  element.textContent = text;
  element.dir = "auto";
  element.lang = language;
}

function ofLanguage() {
  const chosen = data.queries.filter((query) => query.language === at("language").value);
  options(at("question"), chosen.map((query) => data.queries.indexOf(query)), (place) => {
    const query = data.queries[place];
    return `${query.question}: ${query.measures}`;
  });
}

function list(side, query) {
  const language = at("trained").value;
  const find = at("find").value.toLocaleLowerCase();
  at(side).replaceChildren(...query[side].flatMap(([number, score], place) => {
    const [example, code, text] = data.sentences[number];
    if (language && code !== language) return [];
    if (find && !text.toLocaleLowerCase().includes(find) && !example.toLocaleLowerCase().includes(find)) return [];
    const item = document.createElement("li");
    const sentence = document.createElement("p");
    written(sentence, text, code);
    const facts = document.createElement("small");
    facts.textContent = `${place + 1} · ${named(code)} · ${example} · ${score.toPrecision(3)}`;
    item.append(sentence, facts);
    return [item];
  }));
}

function show() {
  const query = data.queries[at("question").value];
  at("measures").textContent = `${named(query.language)}, ${query.question}: ${query.measures}`;
  written(at("before"), query.before, query.language);
  written(at("after"), query.after, query.language);
  const share = (value) => (value === null ? "not known" : value.toFixed(2));
  at("believe").textContent = `Stability of the top between projections: ${share(query.stability)}; in common with ` +
    `token overlap: ${share(query.token_overlap)}, with random sentences of the same language: ${share(query.random_overlap)}.`;
  list("top", query);
  list("bottom", query);
}

options(at("language"), [...new Set(data.queries.map((query) => query.language))], named);
options(at("trained"), ["", ...new Set(data.sentences.map((sentence) => sentence[1]))], (code) => (code ? named(code) : "all languages"));
at("language").addEventListener("change", () => { ofLanguage(); show(); });
for (const id of ["question", "trained"]) at(id).addEventListener("change", show);
at("find").addEventListener("input", show);
at("language").form.addEventListener("submit", (event) => event.preventDefault());
ofLanguage();
show();
