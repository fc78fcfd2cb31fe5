import { readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { describe, expect, test } from "vitest";
import { readRecipe } from "./recipe.ts";
import { learningRateFactor } from "./schedule.ts";
import { train } from "./train.ts";

const root = join(import.meta.dirname, "../../recipes");
const files = readdirSync(root, { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".toml"));
const published = files.filter((name) => name.startsWith("reft/") && !/^(tiny|smollm2)-/.test(basename(name)));

test.each(files)("%s is a valid recipe", (name) => {
  expect(readRecipe(join(root, name)).stages.length).toBeGreaterThan(0);
});

/**
 * The authors' SFT: micro-batches of `batch` on 8 processes, `accumulation` of them an update; each process sees ceil(B / 8) an epoch. Their
 * schedule's length counts micro-batches before they are dealt out, rounding down, so that it ends some updates early.
 */
function authorsSteps(
  questions: number,
  { batch, accumulation, epochs }: Record<"batch" | "accumulation" | "epochs", number>,
) {
  const batches = Math.ceil(questions / batch);
  const perEpoch = Math.ceil(Math.ceil(batches / 8) / accumulation);
  const schedule = Math.floor((Math.floor(batches / 8) * epochs) / accumulation);
  return { perEpoch, total: perEpoch * epochs, schedule, warmup: Math.floor(0.1 * schedule) };
}

/** Questions, steps an epoch, steps of 40 epochs, length of the schedule, its warm-up, and the step of the warm-up policy. */
const table: Record<string, [number, number, number, number, number, number | undefined]> = {
  "gsm8k-p": [7356, 154, 6160, 6120, 612, 308],
  "gsm8k-n": [7465, 156, 6240, 6220, 622, 312],
  "svamp-p": [3043, 64, 2560, 2520, 252, 128],
  "svamp-n": [3076, 65, 2600, 2560, 256, 130],
  "mathqa-p": [15250, 318, 12720, 12700, 1270, 636],
  "mathqa-n": [14862, 310, 12400, 12380, 1238, 1550],
  "mathqa-numeric-n": [8955, 187, 7480, 7460, 746, 1870],
  "mathqa-numeric-p": [7672, 160, 6400, 6380, 638, undefined],
};

describe("the schedule of the warm-up", () => {
  test.each(Object.entries(table))(
    "%s: the authors' steps",
    (_, [questions, perEpoch, total, schedule, warmup, snapshot]) => {
      const found = authorsSteps(questions, { batch: 3, accumulation: 2, epochs: 40 });
      expect(found).toEqual({ perEpoch, total, schedule, warmup });
      if (snapshot !== undefined) expect(snapshot % perEpoch).toBe(0);
    },
  );

  const names = published.map((name) => basename(name, ".toml"));
  const sets = Object.keys(table).filter((set) => names.includes(`${set}-reft`));

  test.each(sets)("%s: the recipes have them", (set) => {
    const [, perEpoch, , schedule, warmup, snapshot] = table[set];
    for (const method of ["sft", "reft", "online", "offline"]) {
      const [sft] = readRecipe(join(root, `reft/${set}-${method}.toml`)).stages;
      expect(sft.budget).toEqual({ kind: "steps", amount: schedule });
      expect(sft.schedule).toEqual({ kind: "linear", warmup, final: 0 });
      expect(sft.stopAt).toBe(method === "sft" ? undefined : snapshot);
      expect(sft.settings.batch).toBe(48);
    }
    expect(readRecipe(join(root, `reft/${set}-sft.toml`)).eval?.every).toBe(perEpoch);
  });

  test("the policy that leaves two epochs of 40 has half of the peak rate behind it; a schedule of its own would have ended", () => {
    const [sft] = readRecipe(join(root, "reft/gsm8k-n-reft.toml")).stages;
    const rate = (step: number, steps: number, warmup: number) =>
      learningRateFactor(
        { kind: "linear", warmup, final: 0 },
        { kind: "steps", amount: steps },
        { step, before: step / steps, now: step / steps },
      );
    expect(sft.lr * rate(311, 6220, 622)).toBeCloseTo(5.0e-6, 7);
    const mean = Array.from({ length: 312 }, (_, step) => sft.lr * rate(step, 6220, 622)).reduce((a, b) => a + b) / 312;
    expect(mean).toBeCloseTo(2.5e-6, 7);
    expect(rate(311, 312, 31)).toBeLessThan(0.01);
  });
});

test("every published recipe names the paper's numbers, and holds out what it chooses on", () => {
  expect(published.length).toBeGreaterThan(15);
  for (const name of published) {
    const recipe = readRecipe(join(root, name));
    const comment = readFileSync(join(root, name), "utf8").split("\nmodel =")[0];
    expect(comment).toMatch(/^# ReFT \(arXiv 2401\.08967\)/);
    // The numbers of one small model are not in the sources that these were taken from.
    if (!name.includes("codeparrot")) expect(comment).toMatch(/\b\d\d\.\d+\b/);
    expect(recipe.eval?.split).toBe("dev");
    expect(recipe.selection).toBeUndefined();
  }
});

test("what is missing is named at the start, and no folder is made", async () => {
  const reranker = readRecipe(join(root, "reft/tiny-rerank.toml"));
  await expect(train(reranker, { run: "/nowhere/run" })).rejects.toThrow(
    /stage 2-rerank reads .*tiny-samples\.jsonl, and there is no such file/,
  );
  const large = readRecipe(join(root, "reft/gsm8k-n-reft.toml"), ["task.path=./not-here"]);
  await expect(train(large, { run: "/nowhere/run" })).rejects.toThrow(/not-here: no such folder or file/);
  const tiny = readRecipe(join(root, "reft/tiny-reft.toml"), ["model=codellama/CodeLlama-7b-hf"]);
  await expect(train(tiny, { run: "/nowhere/run" })).rejects.toThrow(/codellama\/CodeLlama-7b-hf/);
});
