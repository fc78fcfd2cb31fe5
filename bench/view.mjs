// Measures the page of a run in headless Chromium: node bench/view.mjs [--run RUN] [--samples 10000 50000] [--tokens N] [--keep DIR]
// --tokens: each sample's text again and again until it is so long, with other log-probs. Without --run a tiny model is trained for a minute; its steps are repeated until there are samples enough. CHROMIUM names the browser.
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { findChromium, openBrowser } from "../test/helpers/browser.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const { values } = parseArgs({
  allowPositionals: true,
  options: {
    run: { type: "string" },
    samples: { type: "string", multiple: true, default: ["10000", "50000"] },
    tokens: { type: "string" },
    keep: { type: "string" },
  },
});
const program = findChromium();
if (program === undefined) {
  console.log("skipped: no Chromium here; name one with CHROMIUM");
  process.exit(0);
}
const rifft = (...args) =>
  execFileSync(process.execPath, [join(root, "bin", "rifft"), ...args], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "ignore"],
  });
const work = mkdtempSync(join(tmpdir(), "rifft-view-"));
const median = (numbers) => numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)];
const lines = (path) =>
  readFileSync(path, "utf8")
    .split("\n")
    .filter((line) => line !== "");

try {
  const run = values.run ?? join(work, "run");
  if (values.run === undefined) {
    rifft(
      "train",
      join(root, "recipes/quickstart.toml"),
      "--set",
      "stage.1.steps=300",
      "--set",
      "stage.2.steps=20",
      "--run",
      run,
    );
  }
  for (const wanted of values.samples.map(Number)) {
    const dir = values.keep === undefined ? join(work, String(wanted)) : join(values.keep, String(wanted));
    repeated(run, dir, wanted);
    const began = performance.now();
    const { page, samples, bytes } = JSON.parse(rifft("view", dir, "--json"));
    const made = performance.now() - began;
    console.log(`${samples} samples: ${(bytes / 1e6).toFixed(1)} MB, made in ${(made / 1000).toFixed(1)} s`);
    await measure(page);
  }
} finally {
  rmSync(work, { recursive: true, force: true });
}

/** A sample of so many tokens. Numbers that repeat would be compressed as no real ones are. */
function lengthened(segment, tokens) {
  if (tokens === 0 || segment.parent < 0) return segment;
  const times = Math.ceil(tokens / segment.tokens.length);
  const again = (list) => Array.from({ length: times }, () => list).flat();
  const noisy = (x) => Math.fround(x - Math.random());
  return {
    ...segment,
    tokens: again(segment.tokens),
    logprobs: again(segment.logprobs).map(noisy),
    text: segment.text.repeat(times),
    fields: Object.fromEntries(Object.entries(segment.fields).map(([name, numbers]) => [name, again(numbers)])),
  };
}

/** A run with the steps of another one, again and again, until it has so many samples. */
function repeated(run, dir, wanted) {
  rmSync(dir, { recursive: true, force: true });
  mkdirSync(dir, { recursive: true });
  for (const name of ["run.json", "recipe.toml", "verdicts.jsonl"]) cpSync(join(run, name), join(dir, name));
  const stage = readdirSync(join(run, "rollouts")).at(-1);
  const folder = join(run, "rollouts", stage);
  mkdirSync(join(dir, "rollouts", stage), { recursive: true });
  const files = readdirSync(folder).sort();
  const of = (name) => lines(join(run, name)).map((line) => JSON.parse(line));
  const [metrics, timings] = [of("metrics.jsonl"), of("timings.jsonl")].map((all) =>
    all.filter((line) => line.stage === stage),
  );
  const [metricLines, timingLines] = [[], []];
  let samples = 0;
  for (let step = 0; samples < wanted; step++) {
    const from = step % files.length;
    const trees = lines(join(folder, files[from])).map((line) => JSON.parse(line));
    samples += trees.reduce((sum, { segments }) => sum + segments.length - 1, 0);
    const text = trees
      .map(
        (tree, t) =>
          `${JSON.stringify({ ...tree, id: `${stage}/${step}/${t}`, segments: tree.segments.map((one) => lengthened(one, Number(values.tokens ?? 0))) })}\n`,
      )
      .join("");
    writeFileSync(join(dir, "rollouts", stage, `${String(step).padStart(6, "0")}.jsonl`), text);
    metricLines.push(JSON.stringify({ ...metrics[from], step }));
    timingLines.push(JSON.stringify({ ...timings[from], step }));
  }
  writeFileSync(join(dir, "metrics.jsonl"), `${metricLines.join("\n")}\n`);
  writeFileSync(join(dir, "timings.jsonl"), `${timingLines.join("\n")}\n`);
}

async function measure(file) {
  const browser = await openBrowser(program);
  try {
    const opened = [];
    let tab;
    for (let i = 0; i < 5; i++) {
      tab = await browser.open(file, { width: 1600, height: 1000 });
      opened.push(
        await tab.until(
          "document.body?.dataset.state === 'ready' && document.querySelector('.row .snippet')?.textContent !== ''",
        ),
      );
    }
    console.log(
      `  opens (list drawn, first texts there): median ${median(opened).toFixed(0)} ms, worst ${Math.max(...opened).toFixed(0)} ms`,
    );
    console.log(
      `  all texts searchable after ${(await tab.until("document.body.dataset.texts === 'ready'")).toFixed(0)} ms`,
    );
    const heap = await tab.run("performance.memory.usedJSHeapSize");
    console.log(`  JavaScript heap ${(heap / 1e6).toFixed(0)} MB`);
    // Until the list is drawn, which is the frame after.
    for (const [name, change] of [
      ["search in text", "search.value = 'apples 12'"],
      ["clear", "search.value = ''"],
      ["reward from 1", "low.value = '1'"],
      ["not right", "low.value = ''; verdict.value = 'wrong'"],
      ["sorted by log-prob", "verdict.value = 'all'; sort.value = 'logprob up'"],
      ["in order", "sort.value = 'order'"],
    ]) {
      const times = [];
      for (let i = 0; i < 5; i++) {
        times.push(
          await tab.run(`new Promise((resolve) => {
            const [search, low, verdict, sort] = ["search", "low", "verdict", "sort"].map((id) => document.getElementById(id));
            ${change};
            const began = performance.now();
            document.getElementById("filters").dispatchEvent(new Event("input"));
            document.getElementById("list").offsetHeight;
            const channel = new MessageChannel();
            channel.port1.onmessage = () => resolve(performance.now() - began);
            channel.port2.postMessage(0);
          })`),
        );
      }
      const shown = await tab.run("document.getElementById('count').textContent");
      console.log(
        `  ${name}: median ${median(times).toFixed(1)} ms, worst ${Math.max(...times).toFixed(1)} ms (${shown})`,
      );
    }
    const frames = await tab.run(`new Promise((resolve) => {
      const list = document.getElementById("list");
      list.scrollIntoView();
      list.scrollTop = 0;
      const times = [];
      let last = performance.now();
      const began = last;
      const frame = (now) => {
        times.push(now - last);
        last = now;
        list.scrollTop += 300;
        if (now - began < 4000) requestAnimationFrame(frame); else resolve(times.slice(2));
      };
      requestAnimationFrame(frame);
    })`);
    const worst = frames.toSorted((a, b) => b - a);
    const rate = (1000 * frames.length) / frames.reduce((sum, one) => sum + one, 0);
    console.log(
      `  scrolls 300 px a frame: ${rate.toFixed(0)} frames/s, slowest 1 % of frames ${worst[Math.floor(frames.length / 100)].toFixed(0)} ms, worst ${worst[0].toFixed(0)} ms`,
    );
    const moved = await tab.run(`(async () => {
      const list = document.getElementById("list");
      const times = [];
      for (let i = 0; i < 20; i++) {
        const before = document.getElementById("detail").firstElementChild;
        const began = performance.now();
        list.dispatchEvent(new KeyboardEvent("keydown", { key: i % 5 === 4 ? "PageDown" : "ArrowDown" }));
        while (document.getElementById("detail").firstElementChild === before) await new Promise((resolve) => setTimeout(resolve));
        times.push(performance.now() - began);
      }
      return times;
    })()`);
    console.log(
      `  next sample shown: median ${median(moved).toFixed(0)} ms, worst ${Math.max(...moved).toFixed(0)} ms`,
    );
    if (tab.problems.length > 0) throw new Error(tab.problems.join("; "));
  } finally {
    await browser.close();
  }
}
