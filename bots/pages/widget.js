// Puts the chat on any page:
//   <script src="https://chat.shop.example/widget.js" defer></script>
// data-label, data-side ("left" or "right") and data-lang on the tag change how it looks.
// The page's address must be among DESKHAND_CHAT_ORIGINS, else the browser shows no frame.
(() => {
  const script = document.currentScript;
  if (!script || window.deskhandWidget) return;
  const home = new URL(script.src).origin;
  const language = script.dataset.lang || navigator.language || "en";
  const side = script.dataset.side === "left" ? "left" : "right";
  const labels = {
    en: ["Open the chat", "Close the chat"],
    zh: ["打开对话", "关闭对话"],
    de: ["Chat öffnen", "Chat schließen"],
    fr: ["Ouvrir la discussion", "Fermer la discussion"],
    es: ["Abrir el chat", "Cerrar el chat"],
    ja: ["チャットを開く", "チャットを閉じる"],
  };
  const [openLabel, closeLabel] = labels[language.toLowerCase().split("-")[0]] ?? labels.en;
  const label = script.dataset.label || openLabel;

  const host = document.createElement("div");
  const root = host.attachShadow({ mode: "open" }); // the page's styles stay out, ours stay in
  const styles = new CSSStyleSheet(); // allowed under the strictest content security policy
  styles.replaceSync(`
    :host { all: initial; position: fixed; z-index: 2147483000; inset: auto 0 0 auto; }
    button { position: fixed; ${side}: max(20px, env(safe-area-inset-${side}));
      bottom: max(20px, env(safe-area-inset-bottom)); width: 56px; height: 56px; padding: 0;
      border: 0; border-radius: 50%; background: #0f6b5c; color: #fff; cursor: pointer;
      display: grid; place-items: center;
      box-shadow: 0 6px 20px rgb(0 0 0 / .22), 0 1px 3px rgb(0 0 0 / .2); }
    button:hover { background: #0c5a4d; }
    button:focus-visible { outline: 3px solid #fff; box-shadow: 0 0 0 6px #0f6b5c; }
    svg { width: 26px; height: 26px; }
    iframe { position: fixed; ${side}: 20px; bottom: 90px; width: 390px;
      height: min(640px, calc(100dvh - 110px)); border: 0; border-radius: 16px; background: #fff;
      color-scheme: normal; box-shadow: 0 12px 44px rgb(0 0 0 / .26); }
    [hidden] { display: none; }
    @media (prefers-color-scheme: dark) { iframe { background: #171c22; } }
    @media (max-width: 480px) {
      iframe { inset: 0; width: 100%; height: 100dvh; border-radius: 0; }
      .open button { display: none; }
    }
    @media (prefers-reduced-motion: no-preference) { button { transition: background .15s; } }
  `);
  root.adoptedStyleSheets = [styles];

  const box = document.createElement("div");
  const button = document.createElement("button");
  button.type = "button";
  button.setAttribute("aria-expanded", "false");
  button.append(drawing("M4 5.5A2.5 2.5 0 0 1 6.5 3h11A2.5 2.5 0 0 1 20 5.5v8a2.5 2.5 0 0 1-2.5 2.5H11l-4.6 4.1c-.5.45-1.4.1-1.4-.6V16A2.5 2.5 0 0 1 4 13.5Z"));
  box.append(button);
  root.append(box);
  document.body.append(host);
  let frame = null;
  show(false);

  button.addEventListener("click", () => show(frame === null || frame.hidden));
  window.addEventListener("message", (event) => {
    const isOurs = frame !== null && event.source === frame.contentWindow && event.origin === home;
    if (isOurs && event.data && event.data.deskhand === "close") {
      show(false);
      button.focus();
    }
  });
  window.deskhandWidget = { open: () => show(true), close: () => show(false) };

  function show(open) {
    if (open && frame === null) {
      frame = document.createElement("iframe");
      frame.src = `${home}/chat?lang=${encodeURIComponent(language)}`;
      frame.title = label;
      frame.addEventListener("load", () => frame.focus());
      box.prepend(frame);
    } else if (frame !== null) {
      frame.hidden = !open;
      if (open) frame.contentWindow.postMessage({ deskhand: "opened" }, home);
    }
    box.className = open ? "open" : "";
    button.setAttribute("aria-expanded", String(open));
    button.setAttribute("aria-label", open ? closeLabel : label);
    button.title = open ? closeLabel : label;
  }

  function drawing(path) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 24 24");
    svg.setAttribute("aria-hidden", "true");
    const shape = document.createElementNS("http://www.w3.org/2000/svg", "path");
    shape.setAttribute("d", path);
    shape.setAttribute("fill", "currentColor");
    svg.append(shape);
    return svg;
  }
})();
