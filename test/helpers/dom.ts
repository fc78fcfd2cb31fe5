import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { Window } from "happy-dom";
import type { Browser, Tab } from "./browser.mjs";

/** What the window lacks or has in its own way. */
const ofNode = { DecompressionStream, Response, Blob, TextDecoder };

/** A document without a browser: no layout, no pictures, no policy; the page's script runs and its elements can be asked. */
export function openDom(): Browser {
  const windows: Window[] = [];
  return {
    async open(file, { width = 1200, height = 900 } = {}) {
      const url = pathToFileURL(file).href;
      const settings = { enableJavaScriptEvaluation: true, suppressInsecureJavaScriptEnvironmentWarning: true };
      const window = new Window({ width, height, settings });
      windows.push(window);
      Object.assign(window, ofNode);
      const began = performance.now();
      window.document.write(readFileSync(file, "utf8"));
      const run = async <T>(expression: string): Promise<T> => (await window.eval(expression)) as T;
      const key = (name: string) =>
        run<boolean>(
          `(document.activeElement ?? document.body).dispatchEvent(new KeyboardEvent("keydown", { key: ${JSON.stringify(name)}, bubbles: true }))`,
        );
      const tab: Tab = {
        problems: [],
        requests: [url],
        url,
        run,
        async until(expression, seconds = 60) {
          while (performance.now() - began < 1000 * seconds) {
            if (await run(`Boolean(${expression})`)) return performance.now() - began;
            await new Promise((resolve) => setTimeout(resolve, 5));
          }
          throw new Error(`never so: ${expression}`);
        },
        async press(name) {
          await key(name);
        },
        async type(text) {
          await run(`(() => {
            const box = document.activeElement;
            box.value += ${JSON.stringify(text)};
            box.dispatchEvent(new Event("input", { bubbles: true }));
          })()`);
        },
        screenshot: () => Promise.reject(new Error("a document without a browser has no picture")),
      };
      return tab;
    },
    async close() {
      for (const window of windows) await window.happyDOM.close();
    },
  };
}
