// From messages to the page. All text is set as text; only the server's own safe HTML is not.

import { say, timeLocale } from "./strings.js";

const SVG = "http://www.w3.org/2000/svg";
const time = new Intl.DateTimeFormat(timeLocale, { hour: "numeric", minute: "2-digit" });
const day = new Intl.DateTimeFormat(timeLocale, { weekday: "long", day: "numeric", month: "long" });

/** Make an element: `make("p", {class: "x"}, "text", child)`. */
export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

/** An icon of the page's sprite. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** What the visitor wrote; `state` is "sending", "failed" or "" once it is stored. */
export function customerMessage({ text, at, state, onRetry }) {
  const article = make("article", { class: "message mine" });
  article.append(
    make("span", { class: "sr" }, say("you")),
    make("div", { class: "bubble plain-text" }, text),
    make("div", { class: "under" }),
  );
  markCustomerMessage(article, { at, state, onRetry });
  return article;
}

/** Show how far a message of the visitor has come. */
export function markCustomerMessage(article, { at, state, reason, onRetry }) {
  article.dataset.state = state;
  const under = article.querySelector(".under");
  if (state === "failed") {
    under.replaceChildren(
      make("span", { class: "failure" }, reason || say("failed")),
      make("button", { type: "button", class: "link", click: onRetry }, say("retry")),
    );
  } else {
    under.replaceChildren(state === "sending" ? say("sending") : clock(at));
  }
}

/** A message of the bot or of a person. */
export function ourMessage(message, { verdict, onRate, onAsk }) {
  const name = message.author === "agent" ? message.agent || "" : say("bot");
  const article = make("article", { class: `message ours ${message.author}` });
  const parts = [
    avatar(message),
    make("div", { class: "name" }, name),
    bubble(message),
    sources(message),
    make("div", { class: "under" }, clock(message.created_at), rating(message, verdict, onRate)),
    suggestions(
      message.decision === "clarify" ? "options" : "suggestions",
      message.suggestions ?? [],
      onAsk,
    ),
  ];
  article.append(...parts.filter((part) => part !== null));
  return article;
}

/** The bot's bubble before its reply is whole: sentences are put into it as they come. */
export function begunMessage(at) {
  const article = ourMessage({ author: "bot", text: "", created_at: at }, {});
  article.classList.add("begun");
  article.querySelector(".under").replaceChildren();
  return article;
}

/** Let a begun reply say so much. */
export function grow(article, text) {
  article.querySelector(".bubble").textContent = text;
}

/** Make a begun reply the stored one, in place: what was read already does not move. */
export function complete(begun, article) {
  begun.className = article.className;
  const [before, after] = [begun, article].map((one) => one.querySelector(".bubble"));
  if (before.textContent === after.textContent && !after.querySelector("a")) after.replaceWith(before);
  begun.replaceChildren(...article.childNodes);
}

/** Buttons with questions; the visitor's press asks one. */
export function suggestions(label, questions, onAsk) {
  const list = make("div", { class: "suggestions", role: "group", "aria-label": say(label) });
  for (const question of questions) {
    const press = () => onAsk(question);
    list.append(make("button", { type: "button", class: "suggestion", click: press }, question));
  }
  list.hidden = questions.length === 0;
  return list;
}

/** Show a verdict on a reply's thumbs. */
export function markRating(article, verdict, { thanks = false } = {}) {
  for (const button of article.querySelectorAll("[data-verdict]")) {
    button.setAttribute("aria-pressed", String(button.dataset.verdict === verdict));
  }
  const said = article.querySelector(".thanks");
  if (said) said.textContent = thanks ? say("thanks") : "";
}

/** The line above the first message of a day. */
export function dayLine(at) {
  const now = new Date();
  const then = new Date(at);
  const days = Math.round((midnight(now) - midnight(then)) / 86_400_000);
  const label = days === 0 ? say("today") : days === 1 ? say("yesterday") : day.format(then);
  return make("div", { class: "day", "data-day": dayOf(at) }, make("span", {}, label));
}

/** The visitor's calendar day of a moment. */
export function dayOf(at) {
  return new Date(at).toDateString();
}

function midnight(date) {
  return new Date(date.getFullYear(), date.getMonth(), date.getDate()).getTime();
}

function clock(at) {
  return make("time", { datetime: at }, time.format(new Date(at)));
}

function avatar(message) {
  const sign = message.author === "agent" ? initials(message.agent) : icon("mark");
  return make("span", { class: "badge", "aria-hidden": "true" }, sign);
}

function initials(name) {
  const words = (name || "?").trim().split(/\s+/);
  return words.slice(0, 2).map((word) => Array.from(word)[0] ?? "").join("").toUpperCase();
}

function bubble(message) {
  const node = make("div", { class: "bubble" });
  if (!message.html) {
    node.classList.add("plain-text");
    node.textContent = message.text;
    return node;
  }
  node.innerHTML = message.html; // made by the server from escaped text
  for (const link of node.querySelectorAll("a")) {
    link.target = "_blank"; // in a widget a link must not replace the chat
    link.rel = "noopener noreferrer";
  }
  return node;
}

function sources(message) {
  const cited = message.citations ?? [];
  if (cited.length === 0) return null;
  const list = make("ol", {});
  for (const citation of cited) list.append(make("li", {}, source(citation)));
  return make("div", { class: "sources" }, make("span", { class: "title" }, say("sources")), list);
}

function source({ question, url }) {
  if (!/^https?:\/\//i.test(url ?? "")) return make("span", {}, question);
  return make(
    "a",
    { href: url, target: "_blank", rel: "noopener noreferrer" },
    question,
    icon("link"),
  );
}

function rating(message, verdict, onRate) {
  if (!message.rateable) return null;
  const button = (value, key, sign) =>
    make(
      "button",
      {
        type: "button",
        class: "thumb",
        "data-verdict": value,
        "aria-pressed": String(verdict === value),
        "aria-label": say(key),
        title: say(key),
        click: () => onRate(value),
      },
      icon(sign),
    );
  return make(
    "span",
    { class: "rating", role: "group", "aria-label": say("rate") },
    button("up", "up", "thumb-up"),
    button("down", "down", "thumb-down"),
    make("span", { class: "thanks", role: "status" }),
  );
}
