import { describe, expect, test } from "vitest";
import { RandomStream } from "../engine/random.ts";
import { comparisonText, seedsText, tally } from "./compare-table.ts";
import { compareEvaluations, compareSeeds, type CompareOptions, type Evaluated } from "./compare.ts";
import type { EvaluatedSample } from "./samples.ts";

const settings: NonNullable<Evaluated["settings"]> = {
  task: "gsm8k",
  split: "test",
  prompt: "chat",
  mode: "math",
  strict: ["hashes"],
  flexible: ["auto"],
  n: 1,
  temperature: 0,
  maxTokens: 512,
};
const options: CompareOptions = { grading: "strict", allow: [] };

function sample(problem: number, right: boolean, index = 0, rest: Partial<EvaluatedSample> = {}): EvaluatedSample {
  const grade = {
    answer: right ? "1" : "0",
    verdict: right ? ("equal" as const) : ("different" as const),
    rule: "number",
    reason: "",
  };
  return {
    problem: `p${problem}`,
    sample: index,
    question: `question ${problem}`,
    gold: "1",
    text: "",
    tokens: [],
    logprobs: [],
    stop: "eos",
    strict: grade,
    flexible: { ...grade, verdict: "equal" },
    reward: Number(right),
    parts: {},
    solved: right,
    ...rest,
  };
}

const evaluated = (name: string, rights: boolean[], rest: Partial<Evaluated> = {}): Evaluated => ({
  name,
  settings,
  samples: rights.map((right, i) => sample(i, right)),
  ...rest,
});

/** `both` solved by both, then `onlyA`, `onlyB`, and `neither`. */
function pairOf(both: number, onlyA: number, onlyB: number, neither: number): [Evaluated, Evaluated] {
  const column = (parts: [number, boolean][]) => parts.flatMap(([count, right]) => Array<boolean>(count).fill(right));
  return [
    evaluated("a", column([[both, true], [onlyA, true], [onlyB, false], [neither, false]])), // prettier-ignore
    evaluated("b", column([[both, true], [onlyA, false], [onlyB, true], [neither, false]])), // prettier-ignore
  ];
}

describe("two evaluations", () => {
  test("McNemar's counts, the difference, its interval and the sentence", () => {
    const [a, b] = pairOf(50, 2, 18, 30);
    const found = compareEvaluations(a, b, options);
    expect(found.test).toMatchObject({ name: "McNemar", aBetter: 2, bBetter: 18 });
    // 2 (1 + 20 + 190) / 2^20
    expect(found.test.p).toBeCloseTo((2 * 211) / 2 ** 20, 12);
    expect(found.difference).toBeCloseTo(0.16, 12);
    // Bonett and Price 2012 by hand: centre 16/102, half 1.96 sqrt((22/102 - (16/102)^2) / 102)
    const half = 1.959963984540054 * Math.sqrt((22 / 102 - (16 / 102) ** 2) / 102);
    expect(found.interval.low).toBeCloseTo(16 / 102 - half, 12);
    expect(found.interval.high).toBeCloseTo(16 / 102 + half, 12);
    expect(found.sentence).toBe("B is better by 16.0 points, 95 % interval 7.2 to 24.2");
    expect(found.needed).toBeUndefined();
    expect(found.flips).toHaveLength(20);
    expect(found.flips[0]).toMatchObject({ problem: "p52", gold: "1", answers: { a: ["0"], b: ["1"] }, difference: 1 });
    const back = compareEvaluations(b, a, options);
    expect(back.sentence).toBe("A is better by 16.0 points, 95 % interval 7.2 to 24.2");
  });

  test("no difference: how many problems would be needed", () => {
    const found = compareEvaluations(...pairOf(100, 10, 13, 77), options);
    expect(found.sentence).toBe(
      "no difference can be seen with 200 problems (B is ahead by 1.5 points, 95 % interval -3.4 to 6.3); about 4,000 would be needed",
    );
    expect(found.needed).toBeGreaterThan(3900);
    expect(found.needed).toBeLessThan(4100);
  });

  test("equal on every problem, and equal in sum", () => {
    expect(compareEvaluations(...pairOf(5, 0, 0, 5), options)).toMatchObject({
      difference: 0,
      test: { p: 1 },
      sentence: expect.stringMatching(/^no difference can be seen with 10 problems: both solve exactly the same ones/),
    });
    expect(compareEvaluations(...pairOf(5, 2, 2, 5), options).sentence).toMatch(
      /what one side gains it loses elsewhere/,
    );
  });

  test("several samples: shares are compared, the sign test counts problems", () => {
    const four = (rights: number[]) => rights.flatMap((r, i) => [0, 1, 2, 3].map((s) => sample(i, s < r, s)));
    const with4 = { ...settings, n: 4 };
    const a = { name: "a", settings: with4, samples: four([0, 1, 2, 3, 4, 4]) };
    const b = { name: "b", settings: with4, samples: four([1, 3, 2, 4, 4, 3]) };
    const found = compareEvaluations(a, b, options);
    expect(found.test).toEqual({ name: "sign", aBetter: 1, bBetter: 3, p: 0.625 });
    expect(found.difference).toBeCloseTo(3 / 24, 12);
    expect(found.flips.map(({ problem }) => problem)).toEqual(["p1", "p0", "p3", "p5"]);
    expect(comparisonText(found)).toContain("p1  gold 1  A 0 x3, 1  B 1 x3, 0");
  });

  test("the flexible verdicts on request", () => {
    const [a, b] = pairOf(1, 1, 1, 1);
    expect(compareEvaluations(a, b, { ...options, grading: "flexible" }).difference).toBe(0);
    const bare = { ...a, samples: a.samples.map(({ flexible: _, ...rest }) => rest) };
    expect(() => compareEvaluations(bare, b, { ...options, grading: "flexible" })).toThrow(
      "a: its samples have no flexible verdict (a reward of its own): use --grading strict",
    );
  });
});

describe("what must not be compared", () => {
  test("settings that differ are named, and may be allowed", () => {
    const [a, b] = pairOf(5, 1, 1, 5);
    const other = { ...b, settings: { ...settings, maxTokens: 1024, temperature: 1 } };
    expect(() => compareEvaluations(a, other, options)).toThrow(
      "a and b differ in temperature (0 and 1), maxTokens (512 and 1024): evaluate both alike, or compare them all the same with --allow temperature maxTokens",
    );
    expect(compareEvaluations(a, other, { ...options, allow: ["maxTokens", "temperature"] }).problems).toBe(12);
  });

  test("problems of one side only are left out, saying so", () => {
    const [a, b] = pairOf(5, 1, 1, 5);
    const found = compareEvaluations(a, { ...b, samples: b.samples.slice(0, 8) }, options);
    expect(found.problems).toBe(8);
    expect(found.notes).toEqual(["a: 4 of 12 problems left out, the others did not answer them"]);
    expect(compareEvaluations(a, { ...b, settings: undefined }, options).notes).toEqual([
      "b: no record beside its samples, so its settings are not checked",
    ]);
  });

  test("other data sets are refused by name", () => {
    const [a, b] = pairOf(2, 1, 0, 0);
    const gold = { ...b, samples: b.samples.map((one, i) => (i === 1 ? { ...one, gold: "2" } : one)) };
    expect(() => compareEvaluations(a, gold, options)).toThrow("problem p1 has another gold in b than in a");
    const ids = { ...b, samples: b.samples.map((one) => ({ ...one, problem: `q${one.problem}` })) };
    expect(() => compareEvaluations(a, ids, options)).toThrow("a and b have no problem in common");
    expect(() => compareEvaluations(a, { ...b, samples: [] }, options)).toThrow("b holds no samples");
  });
});

describe("methods over seeds", () => {
  const random = new RandomStream("compare test");
  const run = (name: string, rate: number) =>
    evaluated(
      name,
      Array.from({ length: 100 }, () => random.uniform() < rate),
    );
  const pairs = (count: number, a: number, b: number) =>
    Array.from({ length: count }, (_, seed) => ({ seed, a: run(`a${seed}`, a), b: run(`b${seed}`, b) }));

  test("a clear gain over six seeds is a claim", () => {
    const found = compareSeeds(pairs(6, 0.3, 0.6), options);
    expect(found).toMatchObject({ claim: true, signFlip: 0.03125, problems: 100 });
    expect(found.seeds.map(({ seed }) => seed)).toEqual([0, 1, 2, 3, 4, 5]);
    expect(found.sentence).toMatch(/^method B is better by \d+\.\d points over 6 seeds, 95 % t interval/);
    for (const { low, high } of [found.tInterval, found.twoWay]) {
      expect(low).toBeGreaterThan(0);
      expect(low).toBeLessThan(found.difference);
      expect(high).toBeGreaterThan(found.difference);
    }
    const text = seedsText(found);
    for (const { difference } of found.seeds) expect(text).toContain(`+${(100 * difference).toFixed(1)}`);
  });

  test("fewer than six seeds make no claim, however large the gain", () => {
    const found = compareSeeds(pairs(4, 0, 1), options);
    expect(found.claim).toBe(false);
    expect(found.sentence).toMatch(
      /^no claim about a method can be made with 4 seeds: at least 6 are needed \(an exact sign-flip test on 4 cannot go below 0.125\)/,
    );
    const one = compareSeeds(pairs(1, 0.2, 0.5), options);
    expect(one.sentence).toMatch(/with 1 seed:/);
    expect(one.sentence).not.toContain("Infinity");
    expect(seedsText(one)).not.toContain("Infinity");
  });

  test("no difference: how many seeds would be needed", () => {
    const found = compareSeeds(pairs(6, 0.5, 0.5), options);
    expect(found.sentence).toMatch(
      /^no difference between the methods can be seen with 6 seeds \([AB] is ahead by .*\); about [\d,]+ would be needed$/,
    );
    expect(found.needed).toBeGreaterThan(6);
  });

  test("every run must have been evaluated alike", () => {
    const [first, second] = pairs(2, 0.5, 0.5);
    const odd = { ...second, b: { ...second.b, settings: { ...settings, n: 4 } } };
    expect(() => compareSeeds([first, odd], options)).toThrow("a0 and b1 differ in n (1 and 4)");
  });
});

test("answers in a terminal hold no control characters", () => {
  expect(tally(["\u001b[31mred\u202e", null, "1\n2", null])).toBe("(none) x2, [31mred, 1 2");
});
