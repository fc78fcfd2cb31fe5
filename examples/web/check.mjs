// Compares an exported model with the run it comes from: greedy tokens, log-probs and token ids, in Node and in headless Chromium.
//   node check.mjs EXPORTED RUN [--prompts FILE.json] [--texts FILE.json] [--chromium PATH] [--max-tokens N]
// --prompts: an array of texts; --texts: an array of { text, ids }.
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { createReadStream, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { extname, join, resolve, sep } from "node:path";
import { parseArgs } from "node:util";
import * as transformers from "@huggingface/transformers";
import { compare } from "./compare.js";

const here = import.meta.dirname;
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    prompts: { type: "string" },
    texts: { type: "string" },
    chromium: { type: "string", default: "chromium" },
    "max-tokens": { type: "string", default: "64" },
  },
});
const [folder, run] = positionals.map((path) => resolve(path));
if (run === undefined) throw new Error("usage: node check.mjs EXPORTED RUN");
const readJson = (path) => JSON.parse(readFileSync(path, "utf8"));
const people = ["Ben", "Eva", "Tom", "Mia"];
const prompts = values.prompts
  ? readJson(values.prompts)
  : people.map(
      (name, i) => `${name} starts with ${i + 5} books. He gets 1${i} from Eva. How many books does ${name} have?\n`,
    );

const maxTokens = Number(values["max-tokens"]);
const cases = prompts.map((prompt) => {
  const sample = [
    "sample",
    "--model",
    run,
    "--text",
    "--temperature",
    "0",
    "--max-tokens",
    String(maxTokens),
    "--json",
  ];
  const rifft = [join(here, "..", "..", "bin", "rifft"), ...sample, "--prompt", prompt];
  const { samples } = JSON.parse(execFileSync(process.execPath, rifft, { encoding: "utf8" }));
  return { prompt, tokens: samples[0].tokens, logprobs: samples[0].logprobs };
});
const given = { cases, texts: values.texts ? readJson(values.texts) : [], maxTokens };

let failed = false;
function report(where, result) {
  console.log(`${where}: ${JSON.stringify(result)}`);
  failed ||= !(result.otherIds === 0 && result.otherTokens === 0 && result.tokens >= 64 && result.largest <= 1e-4);
}

Object.assign(transformers.env, { allowRemoteModels: false, localModelPath: join(folder, "..") + sep });
report("Node", await compare(transformers, folder.slice(join(folder, "..").length + 1), given));

const types = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".wasm": "application/wasm",
};
let end = async () => {};
const result = await new Promise((settle, reject) => {
  const server = createServer((request, response) => {
    const path = decodeURIComponent(new URL(request.url ?? "/", "http://localhost").pathname);
    if (path === "/result") {
      const parts = [];
      request.on("data", (part) => parts.push(part));
      request.on("end", () => (response.end(), settle(JSON.parse(Buffer.concat(parts).toString()))));
      return;
    }
    if (path === "/cases.json") return void response.end(JSON.stringify(given));
    const file = path.startsWith("/checked/") ? join(folder, path.slice(8)) : join(here, path);
    try {
      response.writeHead(200, { "content-type": types[extname(file)] ?? "", "content-length": statSync(file).size });
      createReadStream(file).pipe(response);
    } catch {
      response.writeHead(404).end();
    }
  });
  server.listen(0, "127.0.0.1", () => {
    const profile = mkdtempSync(join(tmpdir(), "rifft-chromium-"));
    const url = `http://127.0.0.1:${server.address().port}/check.html`;
    const options = ["--headless", "--no-sandbox", "--disable-gpu", `--user-data-dir=${profile}`, url];
    const browser = spawn(values.chromium, options, { stdio: "ignore" });
    browser.on("error", reject);
    end = async () => {
      browser.kill();
      await once(browser, "exit");
      rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
    };
    setTimeout(() => reject(new Error("the page gave no result within five minutes")), 300_000).unref();
  });
});
report("Chromium", result);
await end();
process.exit(failed ? 1 : 0);
