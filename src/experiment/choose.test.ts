import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { armRecipes } from "./arms.ts";
import type { CellResult } from "./cell.ts";
import { choose, freezeChoices, statePower } from "./choose.ts";
import { parseExperiment } from "./file.ts";
import { type Cell, finalPlan, tuningPlan } from "./plan.ts";

const dir = mkdtempSync(join(tmpdir(), "rifft-choose-"));
writeFileSync(join(dir, "r.toml"), 'model = "tiny"\ntask = "arithmetic"\n[[stage]]\nmethod = "grpo"\nsteps = 1\n');
const text = `title = "t"
recipe = "r.toml"
budgets = { generatedTokens = 10 }
tuning = { seeds = [8, 9] }
final = { seeds = [0, 1, 2, 3, 4, 5] }
[[arm]]
name = "a"
settings = [{ "grpo.lr" = 1 }, { "grpo.lr" = 2 }, { "grpo.lr" = 3 }]
[[arm]]
name = "b"
settings = [{ "grpo.lr" = 1 }, { "grpo.lr" = 2 }, { "grpo.lr" = 3 }]
[[contrast]]
a = "a"
b = "b"
budget = "generatedTokens"
`;
const experiment = parseExperiment(text, { source: "x.toml", baseDir: dir });
const arms = armRecipes(experiment);
const { cells } = tuningPlan(experiment, arms, dir);

const nothing = { counts: { generated: 0, prefilled: 0, scored: 0, trained: 0 }, engineSeconds: 0 };
const at = (accuracy: number): CellResult => ({
  before: nothing,
  whole: nothing,
  marks: { generatedTokens: { step: 1, cost: nothing, samples: "s", problems: 10, accuracy } },
});
const diverged: CellResult = { diverged: "loss is NaN", before: nothing, whole: nothing, marks: {} };
/** Results by arm: for each setting those of seeds 8 and 9. */
const tuned = (results: Record<string, (CellResult | undefined)[][]>) =>
  cells.map((cell: Cell) => ({ cell, result: results[cell.arm ?? ""][cell.setting ?? 0][cell.seed - 8] }));

describe("choosing a setting", () => {
  test("the highest mean on dev, the first listed of equal ones; one that diverged is not chosen", () => {
    const chosen = choose(
      experiment,
      arms,
      tuned({
        // 0.1 + 0.2 and 0.3 + 0 differ by rounding alone.
        a: [[at(0), at(0)], [at(0.1), at(0.2)], [at(0.3), at(0)]], // prettier-ignore
        b: [[at(0.9), diverged], [at(0.1), at(0.1)], [at(0.2), at(0.1)]], // prettier-ignore
      }),
    );
    expect([chosen.a.chosen, chosen.b.chosen]).toEqual([1, 2]);
    expect(chosen.b.settings[0]).toEqual({ set: { "grpo.lr": 1 }, dev: { "8": 0.9, "9": null }, mean: null });
  });

  test("an arm of which a tuning cell is missing waits; one whose settings all diverged is an error", () => {
    const all = [[at(0.1), at(0.1)], [at(0.2), at(0.2)], [at(0), at(0)]]; // prettier-ignore
    const chosen = choose(experiment, arms, tuned({ a: all, b: [all[0], [at(0.1), undefined], all[2]] }));
    expect(Object.keys(chosen)).toEqual(["a"]);
    const none = [[diverged, diverged], [diverged, at(1)], [diverged, diverged]]; // prettier-ignore
    expect(() => choose(experiment, arms, tuned({ a: all, b: none }))).toThrow('arm "b": all of its settings diverged');
  });

  test("the choice is frozen, and power is stated once, from the tuning seeds where they tell", () => {
    const spread = [[at(0.1), at(0.1)], [at(0.2), at(0.3)], [at(0), at(0)]]; // prettier-ignore
    const flat = [[at(0.1), at(0.1)], [at(0.2), at(0.2)], [at(0), at(0)]]; // prettier-ignore
    const chosen = choose(experiment, arms, tuned({ a: flat, b: spread }));
    const power = statePower(experiment, chosen, 100);
    expect(power[0]).toMatchObject({ from: "tuning" });
    // Differences 0 and 0.1: a standard deviation of 0.0707.
    expect(power[0].deviation).toBeCloseTo(0.1 / Math.SQRT2, 12);
    const [assumed] = statePower({ ...experiment, assume: { deviation: 0.03, difference: 0.05 } }, chosen, 100);
    expect(assumed).toMatchObject({ from: "assumed", deviation: 0.03 });
    expect(assumed.power?.uncorrected).toBeGreaterThan(0.5);
    const folder = join(dir, "run");
    const frozen = freezeChoices(folder, chosen, power);
    expect(freezeChoices(folder, chosen, [assumed])).toEqual(frozen);
    const file = join(folder, "choices.json");
    writeFileSync(file, readFileSync(file, "utf8").replace('"chosen": 1', '"chosen": 0'));
    expect(() => freezeChoices(folder, chosen, power)).toThrow("remove the file to choose again");
  });
});

test("a profile is made once a seed of what its arms begin with, and they are filtered by it", () => {
  const warm =
    'model = "tiny"\ntask = "arithmetic"\n[[stage]]\nmethod = "sft"\nsteps = 1\n[[stage]]\nmethod = "grpo"\nsteps = 1\n';
  writeFileSync(join(dir, "warm.toml"), warm);
  const filtered = text
    .replace("r.toml", "warm.toml")
    .replace("tuning = { seeds = [8, 9] }", "profile = { n = 2, limit = 5 }")
    .replace(/settings = .*\n/g, "")
    .replace('name = "b"', 'name = "b"\nwhere = "0 < solved < 1"');
  const parsed = parseExperiment(filtered, { source: "x.toml", baseDir: dir });
  const plan = finalPlan(parsed, armRecipes(parsed), dir);
  expect([plan.shared, plan.profiles, plan.cells].map(({ length }) => length)).toEqual([6, 6, 12]);
  const [a, b] = ["a", "b"].map((arm) => plan.cells.find((cell) => cell.arm === arm && cell.seed === 3));
  const profile = plan.profiles.find(({ seed }) => seed === 3);
  expect(a?.after).toBe(profile?.after);
  expect(b?.after).toBe(profile?.id);
  expect(b?.recipe).toMatchObject({ where: "0 < solved < 1", profile: join(dir, ...(profile?.id ?? "").split("/")) });
  expect(b?.recipe.stages[0].from).toBe(a?.recipe.stages[0].from);
  expect(profile?.recipe.where).toBeUndefined();
  const source = { source: "x.toml", baseDir: dir };
  expect(() => parseExperiment(filtered.replace(/profile = .*\n/, ""), source)).toThrow("there is no [profile]");
  expect(() => parseExperiment(filtered.replace(/where = .*\n/, ""), source)).toThrow("no arm has a `where`");
  const typo = parseExperiment(filtered.replace("solved < 1", "solvd < 1"), source);
  expect(() => armRecipes(typo)).toThrow('arm "b": `where`:');
});
