import { afterAll, describe, expect, test } from "vitest";
import { UserError } from "../errors.ts";
import { chooseFigures, type FigureReport } from "./bench.ts";
import { WorkloadProcess } from "./child.ts";
import { figures, type Measured } from "./figures.ts";
import { isQuiet, median } from "./quiet.ts";
import { formatFigure } from "./report.ts";

describe("a workload's process", () => {
  const running: WorkloadProcess[] = [];
  afterAll(() => Promise.all(running.map((one) => one.end())));

  test("gets ready, repeats, and ends", async () => {
    const { process: worker, ready } = await WorkloadProcess.start("tiny");
    running.push(worker);
    expect(ready.facts).toMatchObject({ prompts: 1, samples: 4, prompt: 64, response: 8, rows: 96, scored: 32 });
    expect(ready.plan).toMatch(/passes of/);
    for (let i = 0; i < 2; i++) {
      const { values, peak } = await worker.repeat();
      expect(values.seconds).toBeGreaterThanOrEqual(values.sample + values.train);
      expect(Math.min(values.sample, values.train)).toBeGreaterThan(0);
      expect(peak).toBeGreaterThan(10e6);
    }
    await worker.end();
    await worker.end();
  });

  test("hands its error on", async () => {
    await expect(WorkloadProcess.start("nothing")).rejects.toThrow("no workload nothing");
  });
});

describe("figures", () => {
  test("are chosen by name, each once; the core ones without", () => {
    expect(chooseFigures(["tree", "lora", "tree"]).map(({ name }) => name)).toEqual(["tree", "lora"]);
    expect(chooseFigures([]).map(({ name }) => name)).toContain("decode8-full");
    expect(chooseFigures([]).map(({ name }) => name)).not.toContain("qwen");
    expect(() => chooseFigures(["loora"])).toThrow(new UserError('there is no figure "loora" (did you mean "lora"?)'));
  });

  test("the core ones fit into ten minutes", () => {
    expect(chooseFigures([]).reduce((sum, { seconds }) => sum + seconds, 0)).toBeLessThan(700);
  });

  test("each asks for rates that are probed, and gives ratios of value and floor", () => {
    const common = {
      rows: 2048,
      scored: 2040,
      pairs: 524288,
      keys: 127.5,
      fewer: 2.97,
      computedPairs: 524288,
      treePeak: 2e9,
      flops: 1e12,
    };
    const group = { samples: 8, prompt: 64, response: 128 };
    const own: Record<string, Record<string, number>> = {
      grpo: { ...group, prompts: 1 },
      grpo32: { ...group, prompts: 4 },
      qwen: { ...group, prompts: 4, response: 192 },
      value: { parameters: 577 },
      "search-tree-step": { padding: 1.7 },
    };
    for (const figure of figures) {
      const measured: Measured = {
        median: () => 2,
        facts: { ...common, ...own[figure.name] },
        peak: 1.5,
        gemm(rows) {
          expect(figure.gemmRows, figure.name).toContain(rows);
          return 100e9;
        },
        bandwidth: 30e9,
      };
      for (const { value, floor, ratio } of figure.lines(measured)) {
        expect(Number.isFinite(value)).toBe(true);
        if (floor !== undefined) expect(ratio).toBeCloseTo(value / floor, 9);
      }
    }
  });

  test("decode: the floor is the larger one", () => {
    const decode8 = chooseFigures(["decode8"])[0];
    const lines = (gemm: number) =>
      decode8.lines({
        median: (name) => (name === "seconds" ? 0.04 : 0),
        facts: { keys: 127.5 },
        peak: 1,
        gemm: () => gemm,
        bandwidth: 32.5e9,
      });
    // 538 MB at 32.5 GB/s are 16.6 ms; 2.2 GFLOP at 65 GFLOP/s are 34 ms, at 650 they are 3.4.
    expect(lines(65e9)[0]).toMatchObject({ floorIs: "GEMM at 8 rows", atMost: 1.3 });
    expect(lines(65e9)[0].floor).toBeCloseTo(34.2, 0);
    expect(lines(650e9)[0].floorIs).toBe("bandwidth");
    expect(lines(650e9)[0].floor).toBeCloseTo(16.56, 2);
    expect(lines(650e9)[1].ratio).toBeCloseTo(0.04 / 0.016556, 3);
  });
});

describe("quiet repeats", () => {
  const before = { wall: 0, busy: 0, own: 0 };

  test("others may take a few percent of the cores", () => {
    expect(isQuiet(before, { wall: 1000, busy: 2000, own: 1900 }, 2)).toBe(true);
    expect(isQuiet(before, { wall: 1000, busy: 2000, own: 1800 }, 2)).toBe(false);
    expect(isQuiet(before, { wall: 1000, busy: 1000, own: 1010 }, 2)).toBe(true);
  });

  test("what the system does not tell counts as quiet", () => {
    expect(isQuiet({ ...before, busy: NaN }, { wall: 1000, busy: NaN, own: 100 }, 2)).toBe(true);
  });

  test("the median", () => {
    expect(median([3, 1, 2])).toBe(2);
    expect(median([4, 1, 3, 2])).toBe(2.5);
    expect(median([7])).toBe(7);
  });
});

test("the text of a figure", () => {
  const report: FigureReport = {
    name: "lora",
    about: "a step",
    plan: "3.0 of 20.0 GB at most",
    lines: [
      { what: "step", value: 10.234, unit: "s", floor: 8.35, floorIs: "GEMM", ratio: 1.2256, atMost: 1.2 },
      { what: "peak memory", value: 3.41, unit: "GB", atMost: 3.6 },
      { what: "speed-up", value: 2.5, unit: "times", floor: 2.97, floorIs: "tokens saved", ratio: 0.84, atLeast: 0.7 },
      { what: "repacking", value: 123.4, unit: "ms" },
    ],
    repeats: { judged: 5, all: 7, quiet: true },
    probes: [{ what: "products of 2048 rows", rate: 150.06, unit: "GFLOP/s", by: "2048x576 by 576x1536, prepacked" }],
  };
  expect(formatFigure(report).split("\n")).toEqual([
    "lora: a step",
    "  step           10.2 s   floor 8.35 s (GEMM)   ratio 1.23   ABOVE 1.2",
    "  peak memory    3.41 GB   within 3.6",
    "  speed-up       2.50 times   floor 2.97 times (tokens saved)   ratio 0.84   reaches 0.7",
    "  repacking       123 ms",
    "  median of 5 repeats, quiet (of 7)",
    "  products of 2048 rows: 150 GFLOP/s (2048x576 by 576x1536, prepacked)",
    "  3.0 of 20.0 GB at most",
  ]);
  const noisy = formatFigure({ ...report, repeats: { judged: 1, all: 1, quiet: false } });
  expect(noisy).toContain("  one repeat, not quiet: other programs were busy\n");
});
