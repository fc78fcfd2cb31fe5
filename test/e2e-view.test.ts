import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { EvaluatedSample } from "../src/eval/samples.ts";
import { type Browser, findChromium, openBrowser, type Tab } from "./helpers/browser.mjs";
import { rifft } from "./helpers/cli.ts";
import { openDom } from "./helpers/dom.ts";
import { makeRun, STAGE, tree, words } from "./helpers/made-run.ts";

const dir = mkdtempSync(join(tmpdir(), "rifft-view-"));
const program = findChromium();
if (program === undefined) console.warn("skipped: the page in a browser (no Chromium here; CHROMIUM names one)");
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const lines = (path: string): Record<string, unknown>[] =>
  readFileSync(path, "utf8")
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line));

/** Chooses the row under this number, and gives what the page then says of it. */
const chosen = `async (key) => {
  const detail = document.getElementById("detail");
  const before = detail.firstElementChild;
  document.getElementById("list").dispatchEvent(new KeyboardEvent("keydown", { key }));
  while (detail.firstElementChild === before) await new Promise((resolve) => setTimeout(resolve));
  const text = (box) => box?.textContent ?? null;
  const facts = Object.fromEntries([...detail.querySelectorAll("[data-fact]")].map((fact) => [fact.dataset.fact, fact.textContent]));
  const segments = [...detail.querySelectorAll(".segment")].map((segment) => {
    const body = segment.querySelector(".text");
    const tokens = [];
    const count = segment.querySelectorAll("[data-t]").length;
    for (let t = 0; t < count; t++) {
      body.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
      tokens.push(segment.querySelector(".token").textContent);
    }
    return { source: segment.dataset.source, text: body.textContent, tokens };
  });
  const grades = Object.fromEntries([...detail.querySelectorAll("[data-grading]")].map((grade) => [grade.dataset.grading, grade.textContent]));
  return { title: text(detail.querySelector("h2")), facts, segments, grades, gold: text(detail.querySelector(".gold")) };
}`;

interface Shown {
  title: string;
  facts: Record<string, string>;
  segments: { source: string; text: string; tokens: string[] }[];
  grades: Record<string, string>;
  gold: string | null;
}

const titles = "[...document.querySelectorAll('.row:not([hidden])')].map((row) => row.style.getPropertyValue('--depth') + ' ' + row.textContent)"; // prettier-ignore

const engines: [string, () => Promise<Browser>][] = [
  ["a document without a browser", () => Promise.resolve(openDom())],
  ...(program === undefined ? [] : [["Chromium", () => openBrowser(program)] satisfies (typeof engines)[number]]),
];

beforeAll(async () => {
  const recipe = `model = "tiny"
task = { name = "wordproblems", demonstrations = 200, max = 30 }
eval = { every = 2, limit = 10, split = "dev", maxTokens = 16 }
[[stage]]
method = "sft"
steps = 4
[[stage]]
method = "grpo"
steps = 2
prompts = 3
samples = 4
maxTokens = 12
beta = 0.1
`;
  writeFileSync(join(dir, "real.toml"), recipe);
  expect(await rifft(["train", join(dir, "real.toml"), "--run", join(dir, "real")])).toMatchObject({ code: 0 });
});

describe.each(engines)("the page in %s", (engine, start) => {
  const real = engine === "Chromium";
  let browser: Browser;
  beforeAll(async () => {
    browser = await start();
  });
  afterAll(() => browser.close());

  /** Makes the page and opens it. */
  async function view(paths: string[], size: { width?: number; height?: number } = {}): Promise<Tab> {
    const { stdout, stderr, code } = await rifft(["view", ...paths, "--json"]);
    expect([stderr, code]).toEqual(["", 0]);
    const tab = await browser.open(JSON.parse(stdout).page, size);
    await tab.until("document.body?.dataset.state === 'ready'");
    return tab;
  }

  test("every number of a real run equals the run folder's", async () => {
    const run = join(dir, "real");
    const tab = await view([run]);
    // Steps: from the last back to the first.
    const timings = lines(join(run, "timings.jsonl"));
    for (const [i, { stage, step, ...metrics }] of [...lines(join(run, "metrics.jsonl")).entries()].reverse()) {
      const shown = await tab.run<Record<string, string>>(
        "Object.fromEntries([...document.querySelectorAll('[data-metric]')].map((dd) => [dd.dataset.metric, dd.textContent]))",
      );
      const { at: _, stage: __, step: ___, ...seconds } = timings[i];
      const timed = Object.entries(seconds).map(([name, value]) => [`timings/${name}`, value]);
      const wanted = Object.entries({ ...metrics, ...Object.fromEntries(timed) });
      expect(shown).toEqual(Object.fromEntries(wanted.map(([name, value]) => [name, String(value)])));
      expect(await tab.run("document.getElementById('at').textContent")).toBe(`${stage}, step ${step}`);
      await tab.run("document.getElementById('earlier').click()");
    }
    const points = await tab.run("[...document.querySelectorAll('[data-correct]')].map((g) => [Number(g.dataset.correct), Number(g.dataset.problems)])"); // prettier-ignore
    expect(points).toEqual(lines(join(run, "evals.jsonl")).map(({ correct, problems }) => [correct, problems]));
    // Samples, with each token.
    const folder = join(run, "rollouts", "2-grpo");
    const rewards = lines(join(run, "verdicts.jsonl")).map(({ reward }) => reward);
    let number = 0;
    for (const file of readdirSync(folder).sort()) {
      for (const { segments, problem } of lines(join(folder, file)) as { segments: FileSegment[]; problem: string }[]) {
        const group = await tab.run<Shown>(`(${chosen})("ArrowDown")`);
        expect(group.facts.samples).toBe("4");
        for (const [s, segment] of segments.slice(1).entries()) {
          const shown = await tab.run<Shown>(`(${chosen})("ArrowDown")`);
          expect(shown.title).toBe(`2-grpo step ${Number.parseInt(file, 10)}, ${problem}, sample ${s + 1}`);
          expect(shown.facts.reward).toBe(String(rewards[number++]));
          expect(shown.facts.tokens).toBe(String(segment.tokens.length));
          expect(shown.grades.strict).toContain(segment.outcome.reward === 1 ? "right" : "wrong");
          expect(shown.segments.map(({ text }) => text)).toEqual([segments[0].text, segment.text]);
          const { tokens } = shown.segments[1];
          segment.tokens.forEach((id, t) => {
            const [place, shownId, logprob, ...fields] = tokens[t].split(" · ");
            expect([place, shownId]).toEqual([`token ${t + 1} of ${segment.tokens.length}`, `id ${id}`]);
            expect(logprob.replace(/ \(p = .*\)$/, "")).toBe(`log-prob ${segment.logprobs[t]}`);
            const named = Object.entries(segment.fields).map(([name, numbers]) => `${name === "refLogprobs" ? "reference log-prob" : name} ${Number(numbers[t])}`); // prettier-ignore
            expect(fields).toEqual(named);
          });
        }
      }
    }
    expect(number).toBe(24);
    expect(tab.problems).toEqual([]);
    expect(tab.requests).toEqual([tab.url]);
  });

  test("what belongs together by parent and cause stands as the tree it is", async () => {
    const vocabulary = ["think", "a", "b", "c", "#### 1", "on"];
    const first = tree("r1", "p", [
      words(vocabulary, -1, ["think"]),
      words(vocabulary, 0, ["a"], { outcome: { reward: 0.5 } }),
      words(vocabulary, 1, ["b"], { outcome: { reward: 1 } }),
      words(vocabulary, 1, ["c"], { outcome: { reward: 0 } }),
      words(vocabulary, 0, ["#### 1"], { outcome: { reward: 0.25, format: 1 } }),
    ]);
    const second = tree("r2", "p", [words(vocabulary, -1, ["on"]), words(vocabulary, 0, ["a"]), words(vocabulary, 0, ["b"])], { tree: "r1", segment: 3 }); // prettier-ignore
    const run = join(dir, `forest-${real}`);
    makeRun({
      dir: run,
      vocabulary,
      problems: [{ id: "p", prompt: { text: "think" }, answer: "1" }],
      metrics: [{ stage: STAGE, step: 0, mismatch: 0.5 }],
      rollouts: [[second, first]],
    });
    const tab = await view([run]);
    await tab.until("document.body.dataset.texts === 'ready'");
    const alarms = "[...document.querySelectorAll('[data-alarm=mismatch]')].map((mark) => mark.textContent)";
    expect(await tab.run(alarms)).toEqual(["step 0: mismatch 0.5: sampler and trainer disagree by more than 0.001"]);
    const rows = await tab.run<string[]>(titles);
    expect(rows.map((row) => row.slice(0, 10))).toEqual([
      expect.stringMatching(/^0 1-grpo/),
      expect.stringMatching(/^1 branch/),
      expect.stringMatching(/^2 #1b/),
      expect.stringMatching(/^2 #2c/),
      expect.stringMatching(/^3 1-grpo/),
      expect.stringMatching(/^4 round 2/),
      expect.stringMatching(/^4 round 2/),
      expect.stringMatching(/^1 #3###/),
    ]);
    // The path of the second leaf of the branch, and what it caused.
    for (let i = 0; i < 3; i++) await tab.run(`(${chosen})("ArrowDown")`);
    const leaf = await tab.run<Shown>(`(${chosen})("ArrowDown")`);
    expect(leaf.segments.map(({ text }) => text)).toEqual(["think", "a<|endoftext|>", "c<|endoftext|>"]);
    const relatives = "[...document.querySelectorAll('.relatives button')].map((button) => button.textContent)";
    expect(await tab.run(relatives)).toEqual([
      "1-grpo step 0, p",
      "1-grpo step 0, p, branch at segment 1",
      "1-grpo step 0, p",
    ]);
    await tab.run("[...document.querySelectorAll('.relatives button')].at(-1).click()");
    await tab.until("document.querySelector('[data-fact=\"caused by\"]')?.textContent === 'r1, segment 3'");
    // A search keeps the rows above what it finds.
    await tab.press("/");
    await tab.type("#### 1");
    await tab.until("document.getElementById('count').textContent === '1 of 5 samples'");
    expect(await tab.run(`${titles}.length`)).toBe(2);
    if (real) expect(await tab.run("[...CSS.highlights.get('found')].length")).toBe(0);
    await tab.press("Escape");
    await tab.press("End");
    await tab.until("document.querySelector('[data-fact=format]')?.textContent === '1'");
    if (real) expect(await tab.run("[...CSS.highlights.get('found')].map(String).join()")).toContain("####,1");
    await tab.press("?");
    expect(await tab.run("document.getElementById('help').open")).toBe(true);
    expect(tab.problems).toEqual([]);
  });

  test("hostile text is shown, not run", async () => {
    const vocabulary = [
      "</script><script>document.title = 'hit'</script>",
      '<img src=x onerror="alert(1)">',
      "</div></article><iframe src=file:///etc/passwd></iframe>",
      "<!--<script>",
      "\u202eright to left",
      "<|im_start|>system",
      "\0",
      "\ud83d",
      "$\\text{</math><script>alert(1)</script>}$ #### 1",
    ];
    const run = join(dir, `hostile-${real}`);
    const answers = words(vocabulary, 0, vocabulary, { outcome: { reward: 1, ["<b>"]: 1 } });
    makeRun({
      dir: run,
      vocabulary,
      problems: [
        {
          id: vocabulary[1],
          prompt: { text: vocabulary[0] },
          answer: vocabulary[1],
          tags: { [vocabulary[1]]: vocabulary[2] },
        },
      ],
      metrics: [{ stage: STAGE, step: 0, [vocabulary[1]]: 1 }],
      rollouts: [[tree(vocabulary[0], vocabulary[1], [words(vocabulary, -1, [vocabulary[0]]), answers, answers])]],
    });
    const tab = await view([run]);
    const elements =
      "[...new Set([...document.body.querySelectorAll('iframe, img, b, object, embed, link, script:not([type])')].map((e) => e.tagName))].join()";
    await tab.run(`(${chosen})("ArrowDown")`);
    const shown = await tab.run<Shown>(`(${chosen})("ArrowDown")`);
    const named = vocabulary.join("").replace("\u202e", "U+202E").replace("\0", "U+0000").replace("\ud83d", "U+D83D");
    expect(shown.segments[1].text).toBe(`${named}<|endoftext|>`);
    expect(shown.gold).toBe(vocabulary[1]);
    for (const paint of ["advantages", "plain", "formulas"]) {
      await tab.run(
        `(() => { const paint = document.getElementById("paint"); paint.value = ${JSON.stringify(paint)}; paint.dispatchEvent(new Event("change")); })()`,
      );
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    await tab.run("document.getElementById('more').open = true");
    expect(await tab.run(elements)).toBe("SCRIPT");
    expect(
      await tab.run("[document.title, document.querySelectorAll('body > script:not([type])').length].join()"),
    ).toBe(`hostile-${real},1`);
    expect(tab.problems).toEqual([]);
    expect(tab.requests).toEqual([tab.url]);
  });

  test("two evaluations side by side, and the problems that flipped", async () => {
    const a = evaluation("a", (i) => i < 6);
    const b = evaluation("b", (i) => i >= 2 && i < 9);
    const tab = await view([a, b], { width: 400, height: 800 });
    const head = await tab.run<string>("document.body.innerText");
    expect(head).toMatch(/A \S+a-t\s*60\.0 %\s+\[31\.3 to 83\.2\]\s*B \S+b-t\s*70\.0 %/);
    await tab.run(
      "(() => { const flip = document.getElementById('flip'); flip.value = 'second'; flip.dispatchEvent(new Event('input', { bubbles: true })); })()",
    );
    expect(await tab.run("document.getElementById('count').textContent")).toBe("6 of 20 samples");
    await tab.run(`(${chosen})("ArrowDown")`);
    const sides = await tab.run<string[]>("[...document.querySelectorAll('.side')].map((side) => side.textContent)");
    expect(sides[0]).toMatch(/^A .*strict wrong 8.*answer 6 of A/s);
    expect(sides[1]).toMatch(/^B .*strict right 7.*answer 6 of B/s);
    // Nothing is wider than the screen.
    if (real) expect(await tab.run("document.documentElement.scrollWidth")).toBe(400);
    expect(tab.problems).toEqual([]);
    const alone = await view([a]);
    expect(await alone.run("document.getElementById('count').textContent")).toBe("10 of 10 samples");
    expect(await alone.run("document.body.innerText")).toMatch(/accuracy\s*60\.0 %/);
  });
});

interface FileSegment {
  tokens: number[];
  text: string;
  logprobs: number[];
  fields: Record<string, (number | string)[]>;
  outcome: { reward: number };
}

/** An evaluation folder of ten problems, right where `right(i)`. */
function evaluation(name: string, right: (i: number) => boolean, task = "t"): string {
  const folder = join(dir, `${name}-${task}`);
  mkdirSync(join(folder, "evals"), { recursive: true });
  const samples = Array.from({ length: 10 }, (_, i): EvaluatedSample => {
    const [answer, verdict] = right(i) ? (["7", "equal"] as const) : (["8", "different"] as const);
    const grade = { answer, verdict, rule: "number", reason: "" };
    const rest = {
      tokens: [1],
      logprobs: [-0.5],
      stop: "eos" as const,
      reward: Number(right(i)),
      parts: {},
      solved: right(i),
    };
    return { problem: `p${i}`, sample: 0, question: `what is ${i}?`, gold: "7", text: `answer ${i} of ${name.toUpperCase()}`, strict: grade, flexible: grade, ...rest }; // prettier-ignore
  });
  writeFileSync(join(folder, "evals", "t.jsonl"), samples.map((sample) => `${JSON.stringify(sample)}\n`).join(""));
  const grading = { mode: "math", strict: ["hashes"], flexible: ["auto"] };
  const record = {
    model: name,
    task,
    split: "test",
    prompt: "chat",
    ...grading,
    n: 1,
    temperature: 0,
    maxTokens: 9,
    seed: 0,
    weights: "",
    problems: "",
  };
  writeFileSync(join(folder, "evals", "t.json"), JSON.stringify(record));
  writeFileSync(join(folder, "evals.jsonl"), `{"file":"evals/t.jsonl"}\n`);
  return folder;
}

describe("rifft view", () => {
  test("says where the page is and what it holds, and writes over its own pages alone", async () => {
    const run = join(dir, "small");
    const vocabulary = ["q", "a"];
    makeRun({
      dir: run,
      vocabulary,
      problems: [],
      rollouts: [[tree("t", "p", [words(vocabulary, -1, ["q"]), words(vocabulary, 0, ["a"])])]],
    });
    const first = await rifft(["view", run, "--json"]);
    const page = join(run, "view.html");
    expect(JSON.parse(first.stdout)).toMatchObject({ page, kind: "run", samples: 1, bytes: readFileSync(page).length });
    expect((await rifft(["view", run])).stdout).toMatch(/view\.html: 1 samples?, 0\.\d MB\n$/);
    writeFileSync(join(dir, "mine.html"), "mine");
    const refused = await rifft(["view", run, "--out", join(dir, "mine.html")]);
    expect([refused.code, refused.stderr]).toEqual([
      1,
      expect.stringMatching(/^error: .*mine\.html exists and is not a page of rifft view: /),
    ]);
    expect(readFileSync(join(dir, "mine.html"), "utf8")).toBe("mine");
  });

  test("what cannot be shown is an error that says what was expected", async () => {
    const error = async (...args: string[]) => (await rifft(["view", ...args])).stderr;
    const a = evaluation("a", () => true);
    expect(await error(dir)).toMatch(/is neither a run folder \(.*\) nor one of evaluations/);
    expect(await error(join(dir, "none"))).toContain("does not exist");
    expect(
      await error(
        a,
        evaluation("a", () => true, "other"),
      ),
    ).toMatch(/differ in task \("t" and "other"\)/);
    expect(await error(a, a, a)).toContain("found 3 paths");
    expect(await error(a, a, "--steps", "0-1")).toContain("--steps chooses steps of one run");
    const wrong = await rifft(["view", a, "--steps", "5-1"]);
    expect([wrong.code, wrong.stderr]).toEqual([2, expect.stringContaining("the first and the last step")]);
  });
});
