import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const places = [
  "/usr/bin/chromium",
  "/usr/bin/chromium-browser",
  "/usr/bin/google-chrome",
  "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
  "/Applications/Chromium.app/Contents/MacOS/Chromium",
];

/** A Chromium of this machine: the one that CHROMIUM names, or one in a usual place; undefined where there is none. */
export function findChromium() {
  const named = process.env.CHROMIUM;
  // Windows hands no further pipes to a program in the way that Chromium reads them.
  if (process.platform === "win32") return undefined;
  return named !== undefined && named !== "" ? named : places.find((path) => existsSync(path));
}

/**
 * Starts a headless Chromium and speaks its DevTools protocol over two pipes.
 * @param {string} program
 */
export async function openBrowser(program) {
  const profile = mkdtempSync(join(tmpdir(), "rifft-browser-"));
  const flags = [
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--hide-scrollbars",
    "--no-first-run",
    `--user-data-dir=${profile}`,
  ];
  const child = spawn(program, flags, { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
  const [, , , input, output] = child.stdio;
  let next = 0;
  let rest = "";
  /** @type {Map<number, { resolve(value: any): void, reject(error: Error): void }>} */
  const waiting = new Map();
  /** @type {((message: any) => void)[]} */
  const listeners = [];
  output.setEncoding("utf8");
  output.on("data", (text) => {
    const messages = (rest + text).split("\0");
    rest = messages.pop() ?? "";
    for (const message of messages.map((one) => JSON.parse(one))) {
      const asked = waiting.get(message.id);
      waiting.delete(message.id);
      if (asked === undefined) for (const listener of listeners) listener(message);
      else if (message.error) asked.reject(new Error(message.error.message));
      else asked.resolve(message.result);
    }
  });
  const ended = new Promise((resolve) => child.on("exit", resolve));
  void ended.then(() => {
    for (const { reject } of waiting.values()) reject(new Error(`${program} ended`));
  });
  child.on("error", (error) => {
    for (const { reject } of waiting.values()) reject(error);
  });
  /** @returns {Promise<any>} */
  const send = (method, params = {}, sessionId = undefined) =>
    new Promise((resolve, reject) => {
      const id = ++next;
      waiting.set(id, { resolve, reject });
      input.write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    });

  return {
    /** Opens a file in a new tab of this size. */
    async open(file, { width = 1200, height = 900, dark = false } = {}) {
      const { targetId } = await send("Target.createTarget", { url: "about:blank" });
      const { sessionId } = await send("Target.attachToTarget", { targetId, flatten: true });
      const call = (method, params) => send(method, params, sessionId);
      /** What the page said went wrong. */
      const problems = [];
      /** Addresses that it asked for beside its own. */
      const requests = [];
      listeners.push((message) => {
        if (message.sessionId !== sessionId) return;
        const { method, params } = message;
        if (method === "Runtime.exceptionThrown")
          problems.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
        if (method === "Log.entryAdded" && params.entry.level === "error") problems.push(params.entry.text);
        if (method === "Network.requestWillBeSent") requests.push(params.request.url);
        if (method === "Page.javascriptDialogOpening") {
          problems.push(`dialog: ${params.message}`);
          void call("Page.handleJavaScriptDialog", { accept: true });
        }
      });
      for (const domain of ["Page", "Runtime", "Log", "Network"]) await call(`${domain}.enable`);
      await call("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile: false });
      await call("Emulation.setEmulatedMedia", {
        features: [{ name: "prefers-color-scheme", value: dark ? "dark" : "light" }],
      });
      const url = pathToFileURL(file).href;
      const began = performance.now();
      await call("Page.navigate", { url });
      const page = {
        problems,
        requests,
        url,
        /** Evaluates an expression in the page; a promise is awaited. */
        async run(expression) {
          const { result, exceptionDetails } = await call("Runtime.evaluate", {
            expression,
            awaitPromise: true,
            returnByValue: true,
          });
          if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
          return result.value;
        },
        /** Waits until an expression is true; returns the milliseconds since the page was asked for. */
        async until(expression, seconds = 60) {
          while (performance.now() - began < 1000 * seconds) {
            if (await page.run(`Boolean(${expression})`)) return performance.now() - began;
            await new Promise((resolve) => setTimeout(resolve, 5));
          }
          throw new Error(`never so: ${expression}; ${problems.join("; ")}`);
        },
        /** Presses a key, as a person does. */
        async press(key) {
          const text = key.length === 1 ? key : key === "Enter" ? "\r" : undefined;
          await call("Input.dispatchKeyEvent", {
            type: text === undefined ? "rawKeyDown" : "keyDown",
            key,
            code: key,
            text,
            windowsVirtualKeyCode: codes[key],
          });
          await call("Input.dispatchKeyEvent", { type: "keyUp", key, code: key, windowsVirtualKeyCode: codes[key] });
        },
        async type(text) {
          await call("Input.insertText", { text });
        },
        /** A PNG of what is seen, or of the whole page. */
        async screenshot(whole = false) {
          const { data } = await call("Page.captureScreenshot", { format: "png", captureBeyondViewport: whole });
          return Buffer.from(data, "base64");
        },
      };
      return page;
    },
    async close() {
      void send("Browser.close").catch(() => undefined);
      const timer = setTimeout(() => child.kill("SIGKILL"), 3000);
      await ended;
      clearTimeout(timer);
      rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

const codes = {
  ArrowLeft: 37,
  ArrowUp: 38,
  ArrowRight: 39,
  ArrowDown: 40,
  Enter: 13,
  Escape: 27,
  Home: 36,
  End: 35,
  PageUp: 33,
  PageDown: 34,
};
