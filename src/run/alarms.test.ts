import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import {
  AlarmWatch,
  ENTROPY_ALARM,
  FLAT_ALARM,
  HACKING_ALARM,
  LENGTH_ALARM,
  MISMATCH_ALARM,
  TRUNCATED_ALARM,
} from "./alarms.ts";

/** The kinds raised at each step. */
function kinds(steps: Record<string, number>[], stage = "1-grpo", watch = new AlarmWatch()): string[] {
  return steps.map((metrics) =>
    watch
      .next(stage, metrics)
      .map(({ kind }) => kind)
      .join(" "),
  );
}
const times = (count: number, metrics: Record<string, number>) => Array.from({ length: count }, () => metrics);
const calm = { reward: 0.5, solveRate: 0.5, flatGroups: 0.5, truncated: 0.1, entropy: 1, responseLength: 40, gradeErrors: 0 }; // prettier-ignore

describe("alarms", () => {
  test("a quiet run raises none", () => {
    expect(kinds(times(20, { ...calm, mismatch: 1e-6 })).join("")).toBe("");
  });

  test("a mismatch is told at once", () => {
    expect(new AlarmWatch().next("s", { mismatch: 1e-9, "mismatch/max": MISMATCH_ALARM })).toEqual([
      {
        kind: "mismatch",
        metric: "mismatch/max",
        value: 0.001,
        text: "sampler and trainer disagree by more than 0.001",
      },
    ]);
  });

  test.each([
    ["flat", { flatGroups: FLAT_ALARM }, 5],
    ["truncated", { truncated: TRUNCATED_ALARM }, 5],
    ["entropy", { entropy: 0.99 * ENTROPY_ALARM }, 5],
    ["length", { responseLength: 40 * LENGTH_ALARM }, 5],
    ["length", { responseLength: 40 / LENGTH_ALARM }, 5],
    ["grading", { gradeErrors: 1 }, 3],
  ])("%s: %o is told when it lasts for %d steps", (kind, wrong, inARow) => {
    const bad = { ...calm, ...wrong };
    const quiet = times(6, calm);
    expect(kinds([...quiet, ...times(inARow - 1, bad), calm, ...times(inARow - 1, bad)]).join("")).toBe("");
    const found = kinds([...quiet, ...times(inARow + 1, bad), calm]);
    expect(found.slice(quiet.length + inARow - 2)).toEqual(["", kind, kind, ""]);
  });

  test("longer responses that earn more are no alarm", () => {
    const steps = [...times(5, calm), ...times(12, { ...calm, responseLength: 200, reward: 0.7 })];
    expect(kinds(steps).join("")).toBe("");
  });

  test("a reward that rises while fewer samples are right", () => {
    const hacked = { ...calm, reward: 0.9, solveRate: 0.5 - HACKING_ALARM };
    const found = kinds([...times(5, calm), ...times(12, hacked)]);
    // Five steps until the recent mean is down, three in a row.
    expect(found.indexOf("hacking")).toBe(11);
    expect(kinds([...times(5, calm), ...times(12, { ...hacked, reward: 0.4 })]).join("")).toBe("");
  });

  test("a step without the metric neither ends a row nor adds to it", () => {
    const { entropy, ...silent } = calm;
    const low = { ...calm, entropy: entropy / 100 };
    const found = kinds([...times(5, calm), ...times(4, low), silent, low]);
    expect(found.slice(-2)).toEqual(["", "entropy"]);
  });

  test("another stage begins anew", () => {
    const watch = new AlarmWatch();
    const flat = { ...calm, flatGroups: 1 };
    expect(kinds(times(6, flat), "1-grpo", watch).at(-1)).toBe("flat");
    expect(kinds(times(4, flat), "2-grpo", watch).join("")).toBe("");
  });
});

test("docs/alarms.md names every threshold", () => {
  const text = readFileSync(join(import.meta.dirname, "../../docs/alarms.md"), "utf8");
  const row = (kind: string) => text.split("\n").find((line) => line.startsWith(`| \`${kind}\``)) ?? "";
  expect(row("mismatch")).toContain(`${MISMATCH_ALARM}`);
  expect(row("flat")).toContain(`${FLAT_ALARM}`);
  expect(row("truncated")).toContain(`${TRUNCATED_ALARM}`);
  expect(row("entropy")).toContain(`${100 * ENTROPY_ALARM} %`);
  expect(row("length")).toContain(`${LENGTH_ALARM} times`);
  expect(row("hacking")).toContain(`${HACKING_ALARM}`);
  expect(row("grading")).toContain("3 steps");
});
