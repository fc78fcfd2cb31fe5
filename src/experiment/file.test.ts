import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { armRecipes } from "./arms.ts";
import { checkQuestions } from "./check.ts";
import { alsoOf, askedOf, parseExperiment, readExperiment } from "./file.ts";
import { finalPlan, tuningBudget, tuningPlan } from "./plan.ts";

const dir = mkdtempSync(join(tmpdir(), "rifft-experiment-"));
writeFileSync(
  join(dir, "base.toml"),
  `model = "tiny"
task = { name = "wordproblems", demonstrations = 50, levels = [1] }
[[stage]]
method = "sft"
steps = 3
`,
);

const parts = {
  head: `title = "t"\nrecipe = "base.toml"`,
  budgets: "budgets = { generatedTokens = 1000, engineSeconds = 2 }",
  tuning: "tuning = { seeds = [100, 101] }",
  final: "final = { seeds = [0, 1, 2, 3, 4, 5] }",
  test: "test = { limit = 20 }\ndev = { limit = 10 }",
  sft: `[[arm]]\nname = "sft"\nsettings = [{ "stage.2.lr" = 1e-3 }, { "stage.2.lr" = 1e-4 }]\n[[arm.stage]]\nmethod = "sft"`,
  grpo: `[[arm]]\nname = "grpo"\nsettings = [{ "grpo.lr" = 1e-3 }, { grpo = { lr = 1e-4 } }]\n[[arm.stage]]\nmethod = "grpo"`,
  contrast: `[[contrast]]\na = "sft"\nb = "grpo"\nbudget = "engineSeconds"`,
};

const parse = (changed: Partial<Record<keyof typeof parts, string>> = {}) =>
  parseExperiment(Object.values({ ...parts, ...changed }).join("\n"), { source: "x.toml", baseDir: dir });

describe("an experiment file", () => {
  test("arms asked in their own way, and final runs in further ways", () => {
    const inRounds = parts.grpo.replace(
      'name = "grpo"',
      'name = "grpo"\nevaluate = { rounds = 3, adaptive = true, maxTokens = 40 }',
    );
    const also = [
      "also = [",
      '{ name = "voted", arms = ["sft"], n = 4 }, { name = "one go", arms = ["grpo"], rounds = 0, temperature = 0.5 },',
      '{ name = "before", at = "start", limit = 5, progressTokens = 9, arms = ["grpo"] }]',
    ].join(" ");
    const experiment = parse({ grpo: inRounds, head: `${parts.head}\ncurve = { every = 2, limit = 7 }\n${also}` });
    expect(askedOf(experiment, "sft", experiment.test)).toEqual(experiment.test);
    expect(askedOf(experiment, "grpo", experiment.dev)).toEqual({ ...experiment.dev, rounds: 3, adaptive: true, maxTokens: 40 }); // prettier-ignore
    expect(alsoOf(experiment, "sft")).toEqual([
      { name: "voted", at: "end", spec: { ...experiment.test, n: 4, temperature: 1 } },
    ]);
    expect(alsoOf(experiment, "grpo")).toEqual([
      { name: "one go", at: "end", spec: { ...experiment.test, maxTokens: 40, temperature: 0.5 } },
      {
        name: "before",
        at: "start",
        spec: { ...experiment.test, limit: 5, rounds: 3, adaptive: true, maxTokens: 40, progressTokens: 9 },
      },
    ]);
    const [sft, , grpo] = armRecipes(experiment).map((arm) => arm.recipe(1, arm.budgets).eval);
    expect(sft).toEqual({ every: 2, limit: 7, split: "dev", maxTokens: 512 });
    expect(grpo).toEqual({ every: 2, limit: 7, split: "dev", maxTokens: 40, rounds: 3, adaptive: true });
  });

  test("further evaluations in other formats, by search, and within a budget of tokens", () => {
    const tagged = parts.grpo.replace('name = "grpo"', 'name = "grpo"\nevaluate = { format = "tagged" }');
    const also = [
      'also = [{ name = "plain", format = "default", rounds = 0 }, { name = "votes", n = 8, tokens = 90 },',
      '{ name = "search", arms = ["grpo"], search = 4, tokens = 90 }]',
    ].join(" ");
    const experiment = parse({ grpo: tagged, head: `${parts.head}\n${also}` });
    const { test } = experiment;
    expect(alsoOf(experiment, "sft").map(({ spec, tokens }) => [spec, tokens])).toEqual([
      [test, undefined],
      [{ ...test, n: 8, temperature: 1 }, 90],
    ]);
    expect(alsoOf(experiment, "grpo")).toEqual([
      { name: "plain", at: "end", spec: test },
      { name: "votes", at: "end", spec: { ...test, format: "tagged", n: 8, temperature: 1 }, tokens: 90 },
      { name: "search", at: "end", spec: { ...test, format: "tagged", search: 4, n: 4, temperature: 1 }, tokens: 90 },
    ]);
  });

  test.each([
    ['{ name = "a", tokens = 9 }', /`also.1.tokens`: say how many samples there may be at most/],
    ['{ name = "a", searchValue = "head" }', /`also.1.searchValue` needs .*`also.1.search`/],
    ['{ name = "a", rounds = 2, without = ["verify"] }', /rounds have no functions: leave .*`also.1.without`/],
    ['{ name = "a", rounds = 2, format = "tagged" }', /`also.1.format`: rounds have a prompt of their own/],
    ['{ name = "a", adaptive = true }', /`also.1.adaptive` needs .*`also.1.rounds`/],
    ['{ name = "a", search = 4, n = 2 }', /`also.1.search`: a search draws its rollouts in place of samples/],
  ])("also = [%s] says too little or too much", (line, message) => {
    expect(() => parse({ head: `${parts.head}\nalso = [${line}]` })).toThrow(message);
  });

  test("arms with fewer seeds, and in groups", () => {
    const third = `${parts.grpo.replace('"grpo"', '"few"')}`.replace('name = "few"', 'name = "few"\nseeds = [4, 2]');
    const experiment = parse({ grpo: `${parts.grpo}\n${third}` });
    const first = armRecipes(experiment).filter(({ setting }) => setting === 0);
    const { cells } = finalPlan(experiment, first, dir);
    const seedsOfArm = (arm: string) => cells.filter((cell) => cell.arm === arm).map(({ seed }) => seed);
    expect([seedsOfArm("grpo"), seedsOfArm("few")]).toEqual([[0, 1, 2, 3, 4, 5], [4, 2]]); // prettier-ignore
    const inContrast = parts.contrast.replace('"grpo"', '"few"');
    expect(() => parse({ grpo: `${parts.grpo}\n${third}`, contrast: inContrast })).toThrow(
      /names arm "few", which has `seeds` of its own/,
    );
    expect(() => parse({ grpo: `${parts.grpo}\n${third.replace("[4, 2]", "[4, 9]")}` })).toThrow(
      'arm "few": seed 9 is none of `final.seeds`',
    );
    const grouped = parts.grpo.replace('name = "grpo"', 'name = "grpo"\ngroup = "other"');
    expect(() => parse({ grpo: grouped })).toThrow("compares arms of two groups, none and other");
  });

  test.each([
    [
      'evaluate = { format = "tagged", rounds = 2 }',
      /arm "grpo": `format`: rounds have a prompt of their own.*beside .*`rounds`/,
    ],
    ["evaluate = { adaptive = true }", /arm "grpo": `adaptive` needs .*`rounds`, the number of rounds/],
    ["evaluate = { n = 4 }", /unknown key `arm.2.evaluate.n`/],
  ])("an arm with %s is refused", (line, message) => {
    expect(() => parse({ grpo: parts.grpo.replace('name = "grpo"', `name = "grpo"\n${line}`) })).toThrow(message);
  });

  test.each([
    ['{ name = "a", arms = ["grop"] }', /`also.1.arms`: there is no arm "grop"/],
    ['{ name = "a" }, { name = "a" }', /two of `also` are named "a"/],
    ['{ name = "a", n = 3, temperature = 0 }', /at temperature 0 all samples/],
    ['{ name = "a", searchValue = "head" }', /`also.1.searchValue` needs .*`also.1.search`, the number of rollouts/],
    [
      '{ name = "a", search = 2, searchBy = "prompts", without = ["verify"] }',
      /`also.1.without` is of use in a search by functions/,
    ],
    ['{ name = "a", without = ["verfy"] }', /verfy|also.1.without/],
  ])("also = [%s] is refused", (line, message) => {
    expect(() => parse({ head: `${parts.head}\nalso = [${line}]` })).toThrow(message);
  });

  test("a final run is searched, and asked without functions", () => {
    const also = [
      "also = [",
      '{ name = "search", arms = ["grpo"], search = 16, searchValue = "head", without = ["verify"] },',
      '{ name = "server", arms = ["grpo"], search = 4, searchValue = "prm.toml" },',
      '{ name = "prompts", arms = ["grpo"], search = 4, searchBy = "prompts" },',
      '{ name = "masked", arms = ["grpo"], without = ["verify", "refine"] }]',
    ].join(" ");
    const experiment = parse({ head: `${parts.head}\n${also}` });
    const { test: asked } = experiment;
    expect(alsoOf(experiment, "grpo").map(({ spec }) => spec)).toEqual([
      { ...asked, n: 16, temperature: 1, search: 16, searchValue: "head", without: ["verify"] },
      { ...asked, n: 4, temperature: 1, search: 4, searchValue: join(dir, "prm.toml") },
      { ...asked, n: 4, temperature: 0.8, search: 4, searchBy: "prompts" },
      { ...asked, without: ["verify", "refine"] },
    ]);
  });

  test("an arm is tuned at the budget at which its contrasts judge it, unless the file names one", () => {
    const budgets = (changed: Partial<Record<keyof typeof parts, string>>) => {
      const experiment = parse(changed);
      const arms = armRecipes(experiment);
      return ["sft", "grpo"].map((name) =>
        tuningBudget(
          experiment,
          arms.find(({ arm }) => arm === name)!,
        ),
      );
    };
    const tokens = parts.contrast.replace("engineSeconds", "generatedTokens");
    expect(budgets({})).toEqual(["engineSeconds", "engineSeconds"]);
    // SFT generates nothing.
    expect(budgets({ contrast: tokens })).toEqual(["engineSeconds", "generatedTokens"]);
    expect(budgets({ contrast: `${parts.contrast}\n${tokens}` })).toEqual(["engineSeconds", "engineSeconds"]);
    const tuning = parts.tuning.replace("}", ', budget = "generatedTokens" }');
    expect(budgets({ tuning })).toEqual(["engineSeconds", "generatedTokens"]);
  });

  test("where generated tokens are the only budget, an arm that generates nothing ends by a length of its own", () => {
    const experiment = parse({
      budgets: "budgets = { generatedTokens = 9 }",
      contrast: parts.contrast.replace("engineSeconds", "generatedTokens"),
      sft: `${parts.sft}\nsteps = 40\npatience = 3\nschedule = { kind = "cosine" }`,
      final: `${parts.final}\ncurve = { every = 5 }`,
    });
    const [sft, , grpo] = armRecipes(experiment);
    expect(sft.budgets).toEqual(["generatedTokens"]);
    const stage = sft.recipe(0, sft.budgets).stages[1];
    expect(stage).toMatchObject({ budget: { kind: "steps", amount: 40 }, patience: 3, markAtEnd: true });
    expect(grpo.recipe(0, grpo.budgets).stages[1].budget).toEqual({ kind: "generatedTokens", amount: 9 });
  });

  test("arms, settings and marks: an arm that generates nothing has seconds alone", () => {
    const experiment = parse();
    const arms = armRecipes(experiment);
    expect(arms.map(({ arm, setting, budgets }) => [arm, setting, budgets])).toEqual([
      ["sft", 0, ["engineSeconds"]],
      ["sft", 1, ["engineSeconds"]],
      ["grpo", 0, ["generatedTokens", "engineSeconds"]],
      ["grpo", 1, ["generatedTokens", "engineSeconds"]],
    ]);
    const recipe = arms[3].recipe(7, arms[3].budgets);
    expect(recipe.seed).toBe(7);
    expect(recipe.stages[1].lr).toBe(1e-4);
    expect(recipe.stages[1].marks).toEqual({ generatedTokens: 1000, engineSeconds: 2 });
    expect(recipe.stages[0].budget).toEqual({ kind: "steps", amount: 3 });
  });

  test.each<[string, Partial<Record<keyof typeof parts, string>>, string]>([
    ["a typo", { tuning: "tunning = { seeds = [100] }" }, "unknown key `tunning` (did you mean `tuning`?)"],
    ["one final seed", { final: "final = { seeds = [0] }" }, "`final.seeds`: one seed says nothing about a method"],
    [
      "a seed of both",
      { final: "final = { seeds = [0, 101] }" },
      "seed 101 is one of `tuning.seeds` and of `final.seeds`",
    ],
    ["a seed twice", { final: "final = { seeds = [0, 0] }" }, "`final.seeds` has seed 0 twice"],
    ["no tuning to choose with", { tuning: "" }, "every arm has 2 settings and there is no `tuning`"],
    [
      "more settings for one arm",
      { grpo: `${parts.grpo.replace("[{ ", '[{ "grpo.lr" = 1 }, { ')}` },
      'arm "grpo" is tuned with 3 settings and arm "sft" with 2',
    ],
    [
      "an unknown arm",
      { contrast: parts.contrast.replace('"grpo"', '"gropo"') },
      '`contrast.1.b`: there is no arm "gropo" (did you mean "grpo"?)',
    ],
    ["a contrast with itself", { contrast: parts.contrast.replace('"grpo"', '"sft"') }, 'compares "sft" with itself'],
    ["no contrast", { contrast: "" }, "`contrast` is missing"],
    [
      "a budget that is not there",
      { budgets: "budgets = { generatedTokens = 9 }" },
      "`contrast.1.budget` is engineSeconds",
    ],
    ["no budget", { budgets: "budgets = {}" }, "expected generatedTokens, engineSeconds or both"],
    ["arms of one name", { grpo: parts.grpo.replace('"grpo"', '"sft"') }, 'two arms are named "sft"'],
  ])("%s is refused", (_, changed, message) => {
    expect(() => parse(changed)).toThrow(message);
  });

  test.each<[string, Partial<Record<keyof typeof parts, string>>, string]>([
    [
      "an arm of another budget",
      { grpo: `${parts.grpo}\ngeneratedTokens = 5000` },
      'arm "grpo", setting 1: its last stage has generatedTokens = 5000, and the experiment\'s budget is 1000',
    ],
    [
      "an arm of other marks",
      { grpo: `${parts.grpo}\nmarks = { engineSeconds = 9 }` },
      "engineSeconds = 9, and the experiment's budget is 2",
    ],
    ["an arm with steps", { grpo: `${parts.grpo}\nsteps = 9` }, "`stage.2.steps` would end its last stage"],
    [
      "a setting's typo",
      { grpo: parts.grpo.replace("1e-3", '1, "grpo.lrr" = 2') },
      'arm "grpo", setting 1: unknown key `stage.2.lrr` (did you mean `lr`?)',
    ],
    ["a seed of an arm's own", { grpo: parts.grpo.replace("1e-3", "1, seed = 3") }, "`seed` is the experiment's own"],
    [
      "a schedule that knows its end",
      { grpo: `${parts.grpo}\nschedule = { kind = "linear" }` },
      "marks need a constant learning rate",
    ],
    [
      "an arm that nothing ends",
      {
        budgets: "budgets = { generatedTokens = 9 }",
        contrast: parts.contrast.replace("engineSeconds", "generatedTokens"),
      },
      "sft generates nothing while it trains, so that generatedTokens do not say when it ends; add epochs, steps",
    ],
  ])("%s is refused, naming the arm", (_, changed, message) => {
    expect(() => armRecipes(parse(changed))).toThrow(message);
  });
});

test("the example of the documentation is an experiment", () => {
  const page = readFileSync(join(import.meta.dirname, "..", "..", "docs", "experiments.md"), "utf8");
  const example = /```toml\n(.*?)```/s.exec(page)?.[1].replace("warm.toml", "base.toml") ?? "";
  const experiment = parseExperiment(example, { source: "experiments.md", baseDir: dir });
  expect(armRecipes(experiment).map(({ arm, budgets }) => [arm, budgets.length])).toEqual([
    ...Array.from({ length: 3 }, () => ["sft", 1]),
    ...Array.from({ length: 3 }, () => ["grpo", 2]),
  ]);
});

test("the comparison of all methods: every arm with every setting is a recipe, and starts from its group's warm-up", () => {
  const file = join(import.meta.dirname, "..", "..", "experiments", "comparison.toml");
  const experiment = readExperiment(file);
  const arms = armRecipes(experiment);
  expect(arms).toHaveLength(42);
  const tuning = tuningPlan(experiment, arms, dir);
  const chosen = arms.filter(({ setting }) => setting === 0);
  const final = finalPlan(experiment, chosen, dir);
  expect([tuning.cells.length, tuning.shared.length]).toEqual([42, 2]);
  expect([final.cells.length, final.shared.length]).toEqual([72, 12]);
  expect(final.cells.every(({ after }) => after !== undefined)).toBe(true);
  expect(experiment.contrast).toHaveLength(6);
});

test("a method that samples first keeps its own length, and samples no more than the budget", () => {
  const stage = (rest: string) => ({
    grpo: `[[arm]]\nname = "grpo"\nsettings = [{}, { "selftrain.lr" = 1e-3 }]\n[[arm.stage]]\nmethod = "selftrain"\n${rest}`,
  });
  const [, , own] = armRecipes(parse(stage("steps = 4\ndemonstrations = 0")));
  const { budget, settings } = own.recipe(0, own.budgets).stages[1];
  expect(own.budgets).toEqual(["generatedTokens", "engineSeconds"]);
  expect(budget).toEqual({ kind: "marks", measures: [{ kind: "engineSeconds", amount: 2 }, { kind: "steps", amount: 4 }] }); // prettier-ignore
  expect(settings.sampleTokens).toBe(1000);
  expect(() => armRecipes(parse(stage("sampleTokens = 2000")))).toThrow(
    "`stage.2.sampleTokens` is 2000, and the experiment's budget of generated tokens is 1000",
  );
});

describe("questions", () => {
  const problems = (questions: string[]) =>
    JSON.stringify(
      questions.map((text, i) => ({ id: `p${i}`, prompt: { text }, answer: "1", demonstrations: ["#### 1"] })),
    );
  const task = (name: string, dev: string[], test: string[]) => {
    const train = problems(["How many apples has Ann?", "How many pears has Bob?"]);
    const splits = `train: ${train}, dev: ${problems(dev)}, test: ${problems(test)}`;
    const text = `export default { name: "t", splits: { ${splits} }, grading: { strict: ["hashes"] } };`;
    writeFileSync(join(dir, name), text);
    return { head: `${parts.head}\nset = { task = "./${name}" }`, test: "" };
  };
  const check = (changed: Partial<Record<keyof typeof parts, string>>) => {
    const experiment = parse(changed);
    return checkQuestions(experiment, armRecipes(experiment));
  };

  test("a test split that was trained on is refused by the leak check", async () => {
    const trained = task("trained.mjs", ["Why?"], ["how many PEARS has Bob", "How many plums has Cy?"]);
    await expect(check(trained)).rejects.toThrow(
      '1 of 2 test questions are also trained on by arm "sft", word for word (first p0',
    );
    const tuned = task("tuned.mjs", ["How many plums has Cy?"], ["Who?", "How many plums has Cy?"]);
    await expect(check(tuned)).rejects.toThrow("1 of 2 test questions are also used to choose the settings (dev)");
    await expect(check({ test: 'test = { split = "train", limit = 5 }' })).rejects.toThrow(
      "whose questions the arms are trained on",
    );
  });

  test("arms with other test questions are refused", async () => {
    const grpo = parts.grpo.replace("[[arm.stage]]", `set = { task = { name = "arithmetic" } }\n[[arm.stage]]`);
    await expect(check({ grpo })).rejects.toThrow('arm "grpo" would be evaluated on other questions');
    const group = (arm: string, name: string) => arm.replace(/name = .*/, `$&\ngroup = "${name}"`);
    const twice = (arm: string) => `${group(arm, "x").replace(/"(\w+)"\ngroup/, '"$12"\ngroup')}`;
    const groups = { sft: group(parts.sft, "x"), grpo: `${group(grpo, "y")}\n${twice(parts.grpo)}` };
    const contrast = parts.contrast.replace('"grpo"', '"grpo2"');
    await expect(check({ ...groups, contrast })).resolves.toMatchObject({ problems: 20 });
  });

  test("a format that the questions do not have is found before any work", async () => {
    const grpo = parts.grpo.replace("[[arm.stage]]", 'evaluate = { format = "tagged" }\n[[arm.stage]]');
    await expect(check({ grpo })).rejects.toThrow('has no format "tagged" beside its own (it has none)');
    const stage = `${parts.grpo}\nformat = "tagged"`;
    await expect(check({ grpo: stage })).rejects.toThrow('has no format "tagged"');
  });
});

describe("the plan", () => {
  test("shared beginnings run once a seed, and the cells start from their folders", () => {
    const experiment = parse();
    const arms = armRecipes(experiment);
    const tuning = tuningPlan(experiment, arms, dir);
    expect(tuning.shared.map(({ seed }) => seed)).toEqual([100, 101]);
    expect(tuning.cells).toHaveLength(8);
    // Settings are compared at seconds, which every arm has.
    expect(new Set(tuning.cells.flatMap(({ marks }) => marks))).toEqual(new Set(["engineSeconds"]));
    const final = finalPlan(experiment, [arms[0], arms[3]], dir);
    expect(final.shared).toHaveLength(6);
    const cell = final.cells.find(({ id }) => id === "final/grpo/seed-2");
    expect(cell?.after).toMatch(/^shared\/sft-[0-9a-f]{6}\/seed-2$/);
    expect(cell?.recipe.stages.map(({ name, from }) => [name, from])).toEqual([
      ["1-grpo", join(dir, ...(cell?.after ?? "").split("/"))],
    ]);
    expect(final.shared[2].recipe.stages.map(({ name }) => name)).toEqual(["1-sft"]);
  });

  test("arms that begin otherwise share nothing; longer beginnings go on from shorter ones", () => {
    const other = parts.sft.replace("[{ ", '[{ "stage.1.lr" = 2e-3, ').replace(", { ", ', { "stage.1.lr" = 2e-3, ');
    const apart = parse({ sft: other });
    const first = armRecipes(apart);
    expect(finalPlan(apart, [first[0], first[2]], dir).shared).toEqual([]);
    const longer = (name: string) =>
      `[[arm]]\nname = "${name}"\n[[arm.stage]]\nmethod = "sft"\nsteps = 2\n[[arm.stage]]\nmethod = "grpo"\nlr = ${name === "x" ? 1e-3 : 1e-4}`;
    const single = parts.grpo.replace(/settings.*\n/, "");
    const experiment = parse({
      sft: `${longer("x")}\n${longer("y")}`,
      grpo: single,
      contrast: parts.contrast.replace("sft", "x"),
    });
    const { shared, cells } = finalPlan(experiment, armRecipes(experiment), dir);
    const ofSeed = shared.filter(({ seed }) => seed === 0);
    expect(ofSeed.map(({ recipe }) => recipe.stages.length)).toEqual([1, 1]);
    expect(ofSeed[1].after).toBe(ofSeed[0].id);
    const after = (arm: string) => cells.find((cell) => cell.arm === arm && cell.seed === 0)?.after;
    expect([after("x"), after("y"), after("grpo")]).toEqual([ofSeed[1].id, ofSeed[1].id, ofSeed[0].id]);
  });
});
