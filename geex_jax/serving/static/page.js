"use strict";

const $ = (id) => document.getElementById(id);
const EXAMPLES = {
  complete: "def add(a, b):\n    \"\"\"Return the sum of a and b.\"\"\"\n",
  translate: "def add(a, b):\n    return a + b\n",
  explain: "def add(a, b):\n    return a + b\n",
};
const LABELS = { complete: "Prompt", translate: "Code to translate", explain: "Code to explain" };
const VERBS = { complete: "Complete", translate: "Translate", explain: "Explain" };
const texts = { ...EXAMPLES };
let mode = "complete";
let controller = null;

function headers() {
  const key = $("key").value.trim();
  return { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
}

function say(text) {
  $("message").textContent = text;
}

function clear() {
  $("outputs").replaceChildren();
  $("same").textContent = "";
  say("");
}

// Two models side by side: where the second one first wrote something else.
function compare() {
  const [first, second] = [...document.querySelectorAll(".new")].map((x) => x.textContent);
  if (second === undefined) return;
  let at = 0;
  while (at < first.length && first[at] === second[at]) at += 1;
  $("same").textContent = first === second ? "Both wrote the same."
    : `They wrote the same ${at} characters, then each its own.`;
}

async function failure(response) {
  try {
    const about = await response.json();
    return `${response.status}: ${about.error.message}`;
  } catch {
    return `${response.status} ${response.statusText}`;
  }
}

function fill(select, names, chosen, empty) {
  const options = names.map((name) => new Option(name, name, false, name === chosen));
  select.replaceChildren(...(empty ? [new Option(empty, "")] : []), ...options);
}

async function load() {
  const answers = await Promise.all(
    ["v1/models", "v1/languages"].map((path) => fetch(path, { headers: headers() })));
  const bad = answers.find((answer) => !answer.ok);
  if (bad) {
    say(await failure(bad) + (bad.status === 401 ? " (open Settings and give the API key)" : ""));
    return;
  }
  const [models, known] = await Promise.all(answers.map((answer) => answer.json()));
  const names = models.data.map((model) => model.id);
  const languages = known.data.map((language) => language.name);
  fill($("model"), names, names[0]);
  fill($("second"), names, names.length === 2 ? names[1] : null, "nothing");
  fill($("from"), languages, "Python", mode === "complete" ? "none" : null);
  fill($("to"), languages, "C++");
  $("from").value = "Python";
  $("about").textContent = models.data.map((model) => `${model.id}: ${model.geex.form}`).join(" · ");
  say("");
}

function choose(next) {
  texts[mode] = $("prompt").value;
  mode = next;
  for (const tab of document.querySelectorAll("nav button")) {
    const chosen = tab.dataset.mode === mode;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    if (chosen) $("ask").setAttribute("aria-labelledby", tab.id);
  }
  for (const part of document.querySelectorAll("[data-only]")) {
    part.hidden = part.dataset.only !== mode;
  }
  const none = $("from").querySelector("option[value='']");
  if (mode === "complete" && !none) $("from").prepend(new Option("none", ""));
  if (mode !== "complete" && none) {
    none.remove();
    if (!$("from").value) $("from").value = "Python";
  }
  $("prompt-label").textContent = LABELS[mode];
  $("from-label").textContent = mode === "translate" ? "From" : "Language";
  $("go").textContent = VERBS[mode];
  $("prompt").value = texts[mode];
  clear();
}

function unescaped(text) {
  return text.replaceAll("\\n", "\n").replaceAll("\\t", "\t");
}

function number(id) {
  const value = $(id).valueAsNumber;
  return Number.isNaN(value) ? undefined : value;
}

function question(model) {
  const body = {
    model, stream: true, max_tokens: number("max_tokens"), temperature: number("temperature"),
    top_p: number("top_p"), seed: number("seed"),
  };
  const text = $("prompt").value;
  if (mode === "complete") {
    Object.assign(body, { prompt: text, stream_options: { include_usage: true } });
    if ($("from").value) body.language = $("from").value;
    if ($("stop").value) body.stop = unescaped($("stop").value);
    return ["v1/completions", body, text, (chunk) => chunk.choices[0]?.text ?? ""];
  }
  body.source = text;
  if (mode === "translate") {
    const declaration = $("declaration").value;
    Object.assign(body, { from: $("from").value, to: $("to").value });
    if (declaration) body.declaration = declaration + "\n";
    return ["v1/translate", body, declaration ? declaration + "\n" : "", (chunk) => chunk.code];
  }
  body.language = $("from").value;
  return ["v1/explain", body, "", (chunk) => chunk.explanation];
}

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    held += value;
    const parts = held.split("\n\n");
    held = parts.pop();
    for (const part of parts) {
      if (part.startsWith("data: ") && part !== "data: [DONE]") yield JSON.parse(part.slice(6));
    }
  }
}

function panel(model, given) {
  const output = $("output").content.cloneNode(true).firstElementChild;
  output.querySelector("h2").textContent = model;
  output.querySelector(".given").textContent = given;
  $("outputs").append(output);
  return output;
}

async function write(model, signal) {
  const [path, body, given, textOf] = question(model);
  const output = panel(model, given);
  const fresh = output.querySelector(".new");
  const figures = output.querySelector(".figures");
  const began = performance.now();
  let first = null;
  figures.textContent = "waiting…";
  try {
    const response = await fetch(path, {
      method: "POST", headers: headers(), body: JSON.stringify(body), signal,
    });
    if (!response.ok) throw new Error(await failure(response));
    for await (const chunk of events(response)) {
      if (chunk.error) throw new Error(chunk.error.message);
      const text = textOf(chunk);
      if (text) {
        first ??= performance.now();
        fresh.append(text);
      }
      if (chunk.note) output.querySelector(".note").textContent = chunk.note;
      const seconds = (performance.now() - (first ?? began)) / 1000;
      const wait = first === null ? "" : `first text after ${Math.round(first - began)} ms`;
      if (chunk.usage) {
        const count = chunk.usage.completion_tokens;
        const rate = count > 1 && seconds > 0 ? `, ${((count - 1) / seconds).toFixed(1)} tokens/s` : "";
        figures.textContent = `${count} tokens${rate}, ${wait || "no text"}`;
      } else {
        figures.textContent = `writing… ${wait}`;
      }
    }
  } catch (error) {
    const stopped = error.name === "AbortError";
    figures.textContent = stopped ? "stopped" : "failed";
    if (!stopped) say(error.message);
  }
}

async function ask() {
  if (controller || !$("model").value) return;
  controller = new AbortController();
  clear();
  $("go").disabled = true;
  $("halt").disabled = false;
  const names = [$("model").value, $("second").value].filter((name) => name);
  await Promise.all([...new Set(names)].map((name) => write(name, controller.signal)));
  if (!controller.signal.aborted && !$("message").textContent) compare();
  controller = null;
  $("go").disabled = false;
  $("halt").disabled = true;
}

$("ask").addEventListener("submit", (happened) => {
  happened.preventDefault();
  ask();
});
$("halt").addEventListener("click", () => controller?.abort());
$("key").addEventListener("change", () => load().catch((error) => say(error.message)));
$("ask").addEventListener("keydown", (pressed) => {
  if (pressed.key === "Enter" && (pressed.ctrlKey || pressed.metaKey)) ask();
});
const tabs = [...document.querySelectorAll("nav button")];
for (const [at, tab] of tabs.entries()) {
  tab.addEventListener("click", () => choose(tab.dataset.mode));
  tab.addEventListener("keydown", (pressed) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[pressed.key];
    if (!step) return;
    const next = tabs[(at + step + tabs.length) % tabs.length];
    next.focus();
    choose(next.dataset.mode);
  });
}
$("prompt").value = texts[mode];
choose(mode);
load().catch((error) => say(error.message));
