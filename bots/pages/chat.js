// The web chat. What is stored comes from the server; what is not yet stored is kept here.

import {
  begunMessage,
  complete,
  customerMessage,
  dayLine,
  dayOf,
  grow,
  markCustomerMessage,
  markRating,
  ourMessage,
  suggestions,
} from "./showing.js";
import { language, locale, say, translate } from "./strings.js";
import { newId, post, read, Refused, Stream } from "./talking.js";

const NEAR_THE_END = 120;
const LIMIT = 8000;
const SHOW_LEFT_BELOW = 500;
const KEPT = "deskhand.unsent";

const element = (id) => document.getElementById(id);
const log = element("log");
const thread = element("thread");
const working = element("working");
const notice = element("notice");
const text = element("text");
const composer = element("composer");

const state = {
  conversation: null,
  shown: new Map(), // message id -> article
  written: null, // {turn, sentences, article}: the reply of which sentences are out
  last: 0, // position of the newest stored message
  unsent: [], // {id, kind, text, at, state, article}
  verdicts: {},
  working: false,
  holder: "bot",
  agent: null,
  awaited: false, // stored, but no event has told yet whether the bot is at work
  sending: false,
  loaded: false, // until then what is written waits
};

const stream = new Stream({
  onMessage: (message) => addStored(message),
  onSentence: (sentence) => addSentence(sentence),
  onStatus: (status) => {
    state.awaited = false;
    showStatus(status);
  },
  onConnected: () => hideNotice("reconnecting", "away"),
  onQuiet: () => showNotice(navigator.onLine ? "reconnecting" : "offline"),
});

// --- the start --------------------------------------------------------------------------------

async function begin() {
  translate(document);
  element("holder").textContent = say("bot");
  listen();
  await load();
  log.setAttribute("aria-busy", "false");
  log.setAttribute("aria-live", "polite");
  if (matchMedia("(pointer: fine)").matches) text.focus();
}

async function load() {
  state.loaded = false;
  const start = await persistently(() => read(`/chat/start?lang=${encodeURIComponent(locale)}`));
  const known = await persistently(() => read("/chat/messages"));
  showGreeting(start);
  state.verdicts = known.verdicts ?? {};
  for (const message of known.messages) addStored(message);
  if (known.conversation_id) {
    state.conversation = known.conversation_id;
    showStatus(known);
    stream.open(state.last);
  }
  restoreUnsent();
  toTheEnd();
}

/** Try until the server answers; a refusal means that the browser keeps no cookie. */
async function persistently(attempt) {
  for (let wait = 1; ; wait = Math.min(wait * 2, 15)) {
    try {
      const answer = await attempt();
      hideNotice("away", "offline");
      return answer;
    } catch (error) {
      if (error instanceof Refused) {
        showNotice("cookies");
        throw error;
      }
      showNotice(navigator.onLine ? "away" : "offline");
      await new Promise((resolve) => setTimeout(resolve, wait * 1000));
    }
  }
}

function showGreeting({ greeting, questions }) {
  const hello = { author: "bot", text: greeting, created_at: new Date().toISOString() };
  const article = ourMessage(hello, {});
  article.classList.add("greeting");
  article.querySelector(".under").remove();
  article.lang = language;
  const starters = suggestions("starters", questions, (question) => ask(question));
  starters.classList.add("starters");
  const unsent = state.unsent.map((one) => one.article);
  thread.replaceChildren(article, ...(unsent.length ? unsent : [starters]));
}

// --- what is shown ----------------------------------------------------------------------------

function addStored(message) {
  if (state.shown.has(message.id)) return;
  state.last = Math.max(state.last, message.position);
  const article = message.author === "customer" ? storedByVisitor(message) : fromUs(message);
  state.shown.set(message.id, article);
  element("anew").hidden = false;
  thread.querySelector(".starters")?.remove();
}

function storedByVisitor(message) {
  const sent = state.unsent.find((one) => one.state === "sending" && one.text === message.text);
  if (sent) {
    forget(sent);
    markCustomerMessage(sent.article, { at: message.created_at, state: "" });
    return sent.article;
  }
  const article = customerMessage({ text: message.text, at: message.created_at, state: "" });
  return place(article, message.created_at);
}

function fromUs(message) {
  const article = ourMessage(message, {
    verdict: state.verdicts[message.id],
    onRate: (verdict) => rate(message, verdict),
    onAsk: (question) => ask(question),
  });
  for (const old of thread.querySelectorAll(".message .suggestions")) old.hidden = true;
  if (state.written === null || message.turn_id !== state.written.turn) {
    return place(article, message.created_at);
  }
  // The bubble of the sentences grows into the whole reply where it stands.
  const stay = isNearTheEnd();
  const begun = state.written.article;
  state.written = null;
  complete(begun, article);
  showWorking();
  if (stay) toTheEnd();
  return begun;
}

/** Show one more sentence of a reply that is still being written. */
function addSentence({ turn_id: turn, number, text }) {
  if (state.written?.turn !== turn) {
    state.written?.article.remove();
    const at = new Date().toISOString();
    const article = begunMessage(at);
    state.written = { turn, sentences: [], article };
    for (const old of thread.querySelectorAll(".message .suggestions")) old.hidden = true;
    place(article, at);
  }
  const stay = isNearTheEnd();
  state.written.sentences[number - 1] = text;
  grow(state.written.article, state.written.sentences.join(" "));
  showWorking();
  if (stay) toTheEnd();
}

/** Put a stored message before those that are still to be sent. */
function place(article, at) {
  const stay = isNearTheEnd();
  const before = state.unsent[0]?.article ?? null;
  const days = thread.querySelectorAll(".day");
  if (days[days.length - 1]?.dataset.day !== dayOf(at)) thread.insertBefore(dayLine(at), before);
  thread.insertBefore(article, before);
  if (stay) toTheEnd();
  else element("jump").hidden = false;
  return article;
}

function showStatus(status) {
  state.working = status.working;
  state.holder = status.holder ?? state.holder;
  state.agent = status.agent ?? null;
  const line = element("holder");
  const words = say(state.holder, { name: state.agent ?? "" });
  if (line.textContent !== words) line.textContent = words;
  line.dataset.holder = state.holder;
  element("person").hidden = state.holder === "waiting" || state.holder === "agent";
  showWorking();
}

function showWorking() {
  const busy = state.working || state.awaited || state.unsent.some((one) => one.state === "sending");
  const shows = busy && state.holder !== "agent";
  const words = say(state.written ? "writing" : "working");
  const line = working.querySelector("[data-text]");
  if (line.textContent !== words) line.textContent = words;
  if (shows === !working.hidden) return;
  const stay = isNearTheEnd();
  working.hidden = !shows;
  if (stay) toTheEnd();
}

function isNearTheEnd() {
  return log.scrollHeight - log.scrollTop - log.clientHeight < NEAR_THE_END;
}

function toTheEnd() {
  log.scrollTop = log.scrollHeight;
  element("jump").hidden = true;
}

function showNotice(key) {
  notice.dataset.key = key;
  notice.textContent = say(key);
  notice.hidden = false;
}

function hideNotice(...keys) {
  if (keys.includes(notice.dataset.key)) notice.hidden = true;
}

// --- what the visitor does --------------------------------------------------------------------

function ask(words, kind = "messages") {
  const one = { id: newId(), kind, text: words, at: new Date().toISOString(), state: "sending" };
  thread.querySelector(".starters")?.remove();
  for (const old of thread.querySelectorAll(".message .suggestions")) old.hidden = true;
  enqueue(one);
  toTheEnd();
  if (matchMedia("(pointer: fine)").matches) text.focus(); // a pressed suggestion is gone
  void sendAll();
}

function enqueue(one) {
  one.article = customerMessage({ ...one, onRetry: () => again(one) });
  place(one.article, one.at);
  thread.append(one.article);
  state.unsent.push(one);
  keep();
  showWorking();
}

function again(one) {
  one.state = "sending";
  markCustomerMessage(one.article, { at: one.at, state: "sending" });
  showWorking();
  void sendAll();
}

/** Send what waits, one after the other, so that it arrives in the order in which it was written. */
async function sendAll() {
  if (state.sending || !state.loaded) return;
  state.sending = true;
  let next;
  while (state.loaded && (next = state.unsent.find((one) => one.state === "sending"))) {
    await send(next);
  }
  state.sending = false;
  showWorking();
}

async function send(one) {
  const body = { id: one.id, text: one.text, locale };
  try {
    const receipt = await post(`/chat/${one.kind}`, body, showNotice);
    hideNotice("slowDown", "away", "offline");
    stored(one, receipt);
  } catch (error) {
    if (!state.unsent.includes(one)) return; // only the answer was lost: the stream has shown it
    one.state = "failed";
    const refused = error instanceof Refused;
    if (!refused && !navigator.onLine) showNotice("offline");
    if (refused && error.code === "forbidden") showNotice("cookies");
    markCustomerMessage(one.article, {
      at: one.at,
      state: "failed",
      reason: refused && language === "en" ? error.message : "",
      onRetry: () => again(one),
    });
  }
  keep();
}

function stored(one, receipt) {
  if (!state.shown.has(receipt.message_id)) {
    state.shown.set(receipt.message_id, one.article);
    markCustomerMessage(one.article, { at: one.at, state: "" });
    state.awaited = true; // else the stream was faster, and told of the work already
  }
  forget(one);
  element("anew").hidden = false;
  if (receipt.conversation_id !== state.conversation) {
    // The first message; or another tab began a new conversation.
    const isFirst = state.conversation === null;
    state.conversation = receipt.conversation_id;
    if (isFirst) stream.open(0);
    else void reload();
  }
  // If no event comes (no stream just now), the dots must not stay for ever.
  setTimeout(() => {
    state.awaited = false;
    showWorking();
  }, 5000);
}

async function reload() {
  stream.close();
  Object.assign(state, { shown: new Map(), written: null, last: 0, verdicts: {}, working: false, agent: null });
  await load();
}

function forget(one) {
  state.unsent = state.unsent.filter((other) => other !== one);
  keep();
}

/** What was not sent survives a reload of the page. */
function keep() {
  const rest = state.unsent.map(({ id, kind, text, at }) => ({ id, kind, text, at }));
  try {
    sessionStorage.setItem(KEPT, JSON.stringify(rest));
  } catch {
    // storage is closed to us; then it lives as long as the page
  }
}

function restoreUnsent() {
  state.loaded = true;
  const written = state.unsent.map((one) => one.id);
  for (const one of kept().filter(({ id }) => !written.includes(id))) {
    enqueue({ ...one, state: "sending" });
  }
  const first = state.unsent[0];
  if (first && !thread.querySelector(".day")) thread.insertBefore(dayLine(first.at), first.article);
  void sendAll();
}

function kept() {
  try {
    return JSON.parse(sessionStorage.getItem(KEPT) ?? "[]");
  } catch {
    return [];
  }
}

async function rate(message, verdict) {
  const article = state.shown.get(message.id);
  const before = state.verdicts[message.id];
  state.verdicts[message.id] = verdict;
  markRating(article, verdict, { thanks: true });
  try {
    await post("/chat/feedback", { id: newId(), message_id: message.id, verdict });
  } catch {
    state.verdicts[message.id] = before;
    markRating(article, before);
    showNotice(navigator.onLine ? "away" : "offline");
  }
}

async function beginAnew() {
  const dialog = element("leave");
  dialog.returnValue = "no";
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  if (dialog.returnValue !== "yes") return;
  try {
    await post("/chat/new", {}, showNotice);
  } catch {
    showNotice(navigator.onLine ? "away" : "offline");
    return;
  }
  for (const one of state.unsent) forget(one);
  state.conversation = null;
  element("anew").hidden = true;
  await reload();
  showStatus({ working: false, holder: "bot", agent: null });
  text.focus();
}

// --- the browser's events ---------------------------------------------------------------------

function listen() {
  composer.addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  text.addEventListener("keydown", (event) => {
    // While an input method composes (Chinese, Japanese), Enter picks a word.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    submit();
  });
  text.addEventListener("input", fit);
  element("person").addEventListener("click", () => ask(say("askPerson"), "person"));
  element("anew").addEventListener("click", () => void beginAnew());
  element("jump").addEventListener("click", toTheEnd);
  log.addEventListener("scroll", () => {
    if (isNearTheEnd()) element("jump").hidden = true;
  });
  addEventListener("offline", () => showNotice("offline"));
  addEventListener("online", () => {
    hideNotice("offline");
    if (state.conversation) stream.open(state.last);
    for (const one of state.unsent) if (one.state === "failed") again(one);
  });
  new ResizeObserver(() => {
    if (element("jump").hidden) toTheEnd(); // the phone's keyboard came or went
  }).observe(log);
  listenToHost();
}

function submit() {
  const words = text.value.trim();
  if (!words) return;
  text.value = "";
  fit();
  ask(words);
}

/** Let the field grow with its text; say how much room is left when it gets scarce. */
function fit() {
  element("send").disabled = text.value.trim() === "";
  text.style.height = "auto";
  text.style.height = `${text.scrollHeight}px`;
  const left = LIMIT - text.value.length;
  if (left < SHOW_LEFT_BELOW) {
    notice.dataset.key = "left";
    notice.textContent = say("left", { count: left });
    notice.hidden = false;
  } else {
    hideNotice("left");
  }
}

/** Inside another site's page (widget.js) the chat can be closed. */
function listenToHost() {
  if (parent === self) return;
  document.documentElement.dataset.embedded = "";
  const close = () => parent.postMessage({ deskhand: "close" }, "*");
  element("close").hidden = false;
  element("close").addEventListener("click", close);
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !element("leave").open) close();
  });
  addEventListener("message", (event) => {
    if (event.source === parent && event.data?.deskhand === "opened") text.focus();
  });
}

begin().catch((error) => {
  if (!(error instanceof Refused)) throw error; // a notice says already what to do
});
