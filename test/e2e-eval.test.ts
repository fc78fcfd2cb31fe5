import {
  copyFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { type Ended, rifft, startRifft } from "./helpers/cli.ts";

const dir = mkdtempSync(join(tmpdir(), "rifft-eval-"));
const samplesIn = (out: string): string => {
  const folder = join(dir, out, "evals");
  const name = existsSync(folder) ? readdirSync(folder).find((entry) => entry.endsWith(".jsonl")) : undefined;
  return join(folder, name ?? "none");
};

const asked = "--model tiny --task wordproblems --limit 24 --n 32 --k 1 8 32 --max-tokens 24 --json".split(" ");
const evaluation = (out: string): string[] => ["eval", ...asked, "--out", join(dir, out)];

const reportSchema = z.looseObject({
  accuracy: z.number(),
  interval: z.object({ low: z.number(), high: z.number() }),
  problems: z.number(),
  samples: z.number(),
  measures: z.array(z.looseObject({ name: z.string(), k: z.number().optional(), value: z.number() })),
  groups: z.array(z.looseObject({ tag: z.string(), value: z.string() })),
  file: z.string(),
});

let whole: Ended;
let bytes: Buffer;

beforeAll(async () => {
  whole = await rifft(evaluation("whole"));
  bytes = readFileSync(samplesIn("whole"));
});

describe("an evaluation of several samples", () => {
  test("reports what was asked, every measure and the groups", () => {
    expect(whole.stderr).toBe("");
    const report = reportSchema.parse(JSON.parse(whole.stdout));
    expect(report).toMatchObject({
      task: "wordproblems",
      prompt: "text",
      mode: "math",
      n: 32,
      temperature: 1,
      seed: 0,
    });
    expect([report.problems, report.samples]).toEqual([24, 768]);
    expect(new Set(report.measures.map(({ name, k }) => `${name} ${k ?? ""}`.trim()))).toEqual(
      new Set([
        "accuracy",
        "pass@k 1",
        "pass@k 8",
        "pass@k 32",
        "maj@k 8",
        "maj@k 32",
        "best@k 8",
        "best@k 32",
        "truncated",
        "tokens",
      ]),
    );
    expect(new Set(report.groups.map(({ tag }) => tag))).toEqual(new Set(["level"]));
    expect(bytes.toString().trimEnd().split("\n")).toHaveLength(768);
  });

  test("killed half way and run again it ends with the same bytes", async () => {
    const { child, end } = startRifft(evaluation("killed"));
    const timer = setInterval(() => {
      // In the middle of a chunk of four problems.
      const size = existsSync(samplesIn("killed")) ? statSync(samplesIn("killed")).size : 0;
      if (size > 0.4 * bytes.length) child.kill("SIGKILL");
    }, 1);
    const killed = await end;
    clearInterval(timer);
    expect(killed.signal).toBe("SIGKILL");
    expect(readFileSync(samplesIn("killed")).length).toBeLessThan(bytes.length);
    const again = await rifft(evaluation("killed"));
    expect(again.stderr).toMatch(/^\d+ of 768 samples are in .* already\n$/);
    expect(again.stdout).toBe(whole.stdout);
    expect(readFileSync(samplesIn("killed")).equals(bytes)).toBe(true);
  });

  test("complete, it is reported again; cut off within a line, the rest is sampled", async () => {
    truncateSync(samplesIn("killed"), bytes.length - 100);
    expect((await rifft(evaluation("killed"))).stdout).toBe(whole.stdout);
    expect((await rifft(evaluation("killed"))).stdout).toBe(whole.stdout);
    expect(readFileSync(samplesIn("killed")).equals(bytes)).toBe(true);
    expect(
      readFileSync(join(dir, "killed", "evals.jsonl"), "utf8")
        .trimEnd()
        .split("\n"),
    ).toHaveLength(3);
  });

  test("grading again needs no model and gives the same numbers; other strategies give others", async () => {
    const path = samplesIn("whole");
    const same = await rifft(["eval", "--from", path, "--k", "1", "8", "32", "--json"]);
    const [before, after] = [whole, same].map(({ stdout }) => reportSchema.parse(JSON.parse(stdout)));
    expect({ ...after, file: "" }).toEqual({ ...before, file: "" });
    const other = await rifft(["eval", "--from", path, "--strict", "auto", "--mode", "exact"]);
    expect(other.stdout).toMatch(/mode exact\nstrict: auto; flexible: auto\n/);
    // Without its record a file still says what it holds.
    copyFileSync(path, join(dir, "bare.jsonl"));
    const bare = await rifft(["eval", "--from", join(dir, "bare.jsonl"), "--k", "8", "--json"]);
    expect(reportSchema.parse(JSON.parse(bare.stdout)).accuracy).toBe(before.accuracy);
    expect(readFileSync(path).equals(bytes)).toBe(true);
  });

  test("of a file that is not complete the problems with all their samples count", async () => {
    const path = samplesIn("whole");
    const unfinished = join(dir, "unfinished.jsonl");
    writeFileSync(unfinished, bytes.subarray(0, bytes.length - 100));
    copyFileSync(path.replace(".jsonl", ".json"), unfinished.replace(".jsonl", ".json"));
    const ended = await rifft(["eval", "--from", unfinished, "--json"]);
    expect(reportSchema.parse(JSON.parse(ended.stdout))).toMatchObject({ problems: 23, samples: 23 * 32 });
    expect(ended.stderr).toMatch(/last line was cut off.*\n.*1 of 24 problems lack some of their 32 samples/);
  });
});

describe("without a model", () => {
  const data = (name: string, ...rows: object[]): string => {
    writeFileSync(join(dir, name), rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
    return `{ name = ${JSON.stringify(join(dir, name))}, grader = "math", dev = 0 }`;
  };

  test("--validate counts the golds by rule, lists plain texts, and fails where one is not equal to itself", async () => {
    const good = data(
      "good-test.jsonl",
      { question: "?", answer: "\\frac12" },
      { question: "!", answer: "\\text{Monday}" },
    );
    const ended = await rifft(["eval", "--task", good, "--validate"]);
    expect(ended.code).toBe(0);
    expect(ended.stdout).toMatch(/2 of 2 golds grade equal to themselves \(mode math, boxed\)/);
    expect(ended.stdout).toMatch(/compared as plain text: 1\n {2}line-2: \\text\{Monday\}/);
    const bad = data("bad-test.jsonl", { question: "?", answer: "1" }, { question: "!", answer: "}{" });
    const failed = await rifft(["eval", "--task", bad, "--validate", "--json"]);
    expect(failed.code).toBe(1);
    expect(JSON.parse(failed.stdout)).toMatchObject({ problems: 2, unreadable: [{ problem: "line-2", gold: "}{" }] });
  });

  test("--leaks names what was trained on", async () => {
    const train = data(
      "lessons.jsonl",
      { question: "What is 2 + 2?", answer: "4" },
      { question: "And 3 + 3?", answer: "6" },
    );
    const exam = data(
      "exam-test.jsonl",
      { question: "what is 2+2", answer: "4" },
      { question: "What is 2 + 3?", answer: "5" },
    );
    const ended = await rifft(["eval", "--task", exam, "--leaks", train]);
    expect(ended.stdout).toMatch(
      /1 of 2 questions occur among 2 training questions of lessons\n {2}line-1: the same as line-1\n/,
    );
  });

  const broken = (): string => {
    const lines = bytes.toString().split("\n");
    writeFileSync(join(dir, "broken.jsonl"), lines.with(4, lines[4].slice(0, 30)).join("\n"));
    return join(dir, "broken.jsonl");
  };

  test.each<[string, () => string[], RegExp]>([
    ["an unknown task", () => ["--model", "tiny", "--task", "gsm8"], /unknown task "gsm8" \(did you mean gsm8k\?\)/],
    [
      "an unknown strategy",
      () => ["--from", samplesIn("whole"), "--strict", "boxd"],
      /unknown strategy "boxd" \(did you mean boxed\?\)/,
    ],
    [
      "an unknown mode",
      () => ["--model", "tiny", "--task", "wordproblems", "--mode", "exct"],
      /unknown mode "exct" \(did you mean exact\?\)/,
    ],
    [
      "k above n",
      () => ["--model", "tiny", "--task", "wordproblems", "--n", "4", "--k", "8"],
      /--k 8 needs 8 samples a problem, there are 4/,
    ],
    [
      "k above the n of a file",
      () => ["--from", samplesIn("whole"), "--k", "64"],
      /--k 64 needs 64 samples a problem, there are 32/,
    ],
    [
      "several greedy samples",
      () => ["--model", "tiny", "--task", "wordproblems", "--n", "4", "--temperature", "0"],
      /at temperature 0 all 4 samples/,
    ],
    ["a broken samples file", () => ["--from", broken()], /broken\.jsonl:5: expected a sample as JSON, found/],
    ["an empty samples file", () => ["--from", join(dir, "empty.jsonl")], /empty\.jsonl: holds no whole sample/],
    [
      "neither model nor samples",
      () => ["--task", "wordproblems"],
      /name a model with --model, or samples to grade again with --from/,
    ],
    [
      "a gold that no rule can read",
      () => [
        "--model",
        "tiny",
        "--task",
        data("bad-test.jsonl", { question: "!", answer: "}{" }),
        "--out",
        join(dir, "bad"),
      ],
      /no rule can read the gold of problem line-1, "\}\{" \(.*--validate/,
    ],
  ])("%s is one line", async (_, args, message) => {
    writeFileSync(join(dir, "empty.jsonl"), "");
    const ended = await rifft(["eval", ...args()]);
    expect(ended.stderr).toMatch(/^error: [^\n]*\n$/);
    expect(ended.stderr).toMatch(message);
    expect([ended.code, ended.stdout]).toEqual([1, ""]);
    expect(readFileSync(samplesIn("whole")).equals(bytes)).toBe(true);
  });
});
