import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { readSamples } from "../src/eval/samples.ts";
import { type Ended, rifft, startRifft } from "./helpers/cli.ts";

const dir = mkdtempSync(join(tmpdir(), "rifft-rounds-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const samplesIn = (out: string): string => {
  const folder = join(dir, out, "evals");
  const name = existsSync(folder) ? readdirSync(folder).find((entry) => entry.endsWith(".jsonl")) : undefined;
  return join(folder, name ?? "none");
};
const evaluation = (out: string, ...more: string[]): string[] => [
  ..."eval --model tiny --task lists --limit 12 --n 32 --max-tokens 12 --rounds 3 --json".split(" "),
  ...more,
  "--out",
  join(dir, out),
];
const reportSchema = z.looseObject({
  rounds: z.object({ rounds: z.number(), adaptive: z.boolean(), style: z.string() }),
  measures: z.array(z.looseObject({ name: z.string(), round: z.number().optional(), value: z.number() })),
  file: z.string(),
});

let whole: Ended;
let bytes: Buffer;
beforeAll(async () => {
  whole = await rifft(evaluation("whole"));
  bytes = readFileSync(samplesIn("whole"));
});

describe("an evaluation in rounds", () => {
  test("keeps every round, and reports by round", () => {
    expect(whole.stderr).toBe("");
    const report = reportSchema.parse(JSON.parse(whole.stdout));
    expect(report.rounds).toEqual({ rounds: 3, adaptive: false, style: "default" });
    const value = (name: string, round?: number) =>
      report.measures.find((m) => m.name === name && m.round === round)?.value ?? NaN;
    const { samples } = readSamples(samplesIn("whole"));
    expect(samples).toHaveLength(12 * 32);
    expect(samples.every(({ rounds }) => rounds?.length === 2)).toBe(true);
    expect(value("rounds")).toBe(3);
    const perRound = [1, 2, 3].map((round) => value("round tokens", round));
    expect(32 * perRound.reduce((sum, tokens) => sum + tokens, 0)).toBeCloseTo(value("tokens"), 6);
    // The record counts what the engine generated.
    const record = z
      .looseObject({ cost: z.looseObject({ generated: z.number(), prefilled: z.number(), samples: z.number() }) })
      .parse(JSON.parse(readFileSync(samplesIn("whole").replace(/jsonl$/, "json"), "utf8")));
    expect(record.cost.generated).toBeCloseTo(12 * value("tokens"), 6);
    expect(record.cost.prefilled).toBeGreaterThan(0);
    expect(record.cost.prefilled).toBeLessThanOrEqual(12 * value("prompt tokens"));
  });

  test("killed in the middle and run again it ends with the same bytes", async () => {
    const { child, end } = startRifft(evaluation("killed"));
    const timer = setInterval(() => {
      const size = existsSync(samplesIn("killed")) ? statSync(samplesIn("killed")).size : 0;
      if (size > 0.4 * bytes.length) child.kill("SIGKILL");
    }, 1);
    const killed = await end;
    clearInterval(timer);
    expect(killed.signal).toBe("SIGKILL");
    expect(readFileSync(samplesIn("killed")).length).toBeLessThan(bytes.length);
    const again = await rifft(evaluation("killed"));
    expect(again.stderr).toMatch(/^\d+ of 384 samples are in .* already\n$/);
    expect(again.stdout).toBe(whole.stdout);
    expect(readFileSync(samplesIn("killed")).equals(bytes)).toBe(true);
  });

  test("graded again it gives the same numbers; other rounds are another evaluation, and not compared unawares", async () => {
    const path = samplesIn("whole");
    const again = await rifft(["eval", "--from", path, "--json"]);
    const [before, after] = [whole, again].map(({ stdout }) => reportSchema.parse(JSON.parse(stdout)));
    expect({ ...after, file: "" }).toEqual({ ...before, file: "" });
    await rifft(evaluation("adaptive", "--adaptive"));
    const refused = await rifft(["compare", path, samplesIn("adaptive")]);
    expect(refused.code).toBe(1);
    expect(refused.stderr).toContain("--allow rounds");
    const compared = await rifft(["compare", path, samplesIn("adaptive"), "--allow", "rounds", "--json"]);
    expect(compared.code).toBe(0);
    const page = await rifft(["view", path, "--out", join(dir, "view.html"), "--json"]);
    expect(page.code).toBe(0);
  });

  test.each([
    [["--adaptive"], "error: --adaptive needs --rounds, the number of rounds"],
    [["--progress-tokens", "9"], "error: --progress-tokens needs --rounds, the number of rounds"],
    [["--rounds", "27"], "error: task lists words at most 26 rounds, found 27"],
  ])("%j is refused", async (flags, message) => {
    const asked = "eval --model tiny --task lists --limit 2 --out".split(" ");
    const ended = await rifft([...asked, join(dir, "refused"), ...flags]);
    expect([ended.code, ended.stderr.trim()]).toEqual([1, message]);
  });

  test("a format of the questions has no part in rounds", async () => {
    const asked = ["eval", "--model", "tiny", "--task", '{ name = "lists", formats = true }', "--limit", "2"];
    const ended = await rifft([...asked, "--rounds", "2", "--format", "tagged", "--out", join(dir, "refused")]);
    expect([ended.code, ended.stderr.trim()]).toEqual([
      1,
      "error: --format: rounds have a prompt of their own, so that a format counts for nothing beside --rounds; leave one of the two out",
    ]);
  });

  test("a task whose prompts are plain text and that words no rounds says so", async () => {
    const asked = "eval --model tiny --task wordproblems --limit 2 --rounds 2 --out".split(" ");
    const ended = await rifft([...asked, join(dir, "refused")]);
    expect([ended.code, ended.stderr]).toEqual([1, expect.stringContaining("rounds are chats")]);
  });
});
