import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Capabilities } from "../engine/types.ts";
import { UserError } from "../errors.ts";
import { TAG_TOKENS } from "../tags/index.ts";
import { createSpec } from "./models.ts";
import { checkCapabilities } from "./preflight.ts";
import { parseRecipe, type Recipe, readRecipe, recipeDifference, recipeTable, recipeToml } from "./recipe.ts";

const small = `
model = "tiny"
task = "wordproblems"
[[stage]]
method = "sft"
epochs = 2
[[stage]]
method = "grpo"
steps = 20
prompts = 4
`;

const read = (text: string, overrides: string[] = []) =>
  parseRecipe(text, { source: "recipe.toml", baseDir: "/recipes", overrides });

/** The message of the UserError that reading throws. */
function mistake(text: string, overrides: string[] = []): string {
  try {
    read(text, overrides);
  } catch (error) {
    if (error instanceof UserError) {
      expect(error.message).not.toContain("\n");
      return error.message;
    }
    throw error;
  }
  throw new Error("the recipe was accepted");
}

describe("parseRecipe", () => {
  test("fills in defaults and names stages", () => {
    const recipe = read(small);
    expect(recipe.seed).toBe(0);
    expect(recipe.lora).toBeUndefined();
    expect(recipe.checkpoint).toEqual({ every: 20, keep: 2 });
    expect(recipe.stages.map((stage) => stage.name)).toEqual(["1-sft", "2-grpo"]);
    expect(recipe.stages[0].budget).toEqual({ kind: "epochs", amount: 2 });
    expect(recipe.stages[1].from).toBe("previous");
    expect(recipe.stages[1].settings).toMatchObject({ prompts: 4, samples: 8 });
    expect(recipe.stages[1].lr).toBe(recipe.stages[1].settings.lr);
  });

  test("the complete recipe, printed and read again, is the same", () => {
    const text = `${small}schedule = { kind = "cosine", warmup = 0.1 }\nstopAt = 0.3\nfrom = "1-sft"`;
    const recipe = read(`lora = { rank = 8, alpha = 16 }\nmemory = 4.5\n${text}`);
    const printed = recipeToml(recipe);
    expect(printed).toContain("samples = 8");
    expect(printed).toContain("final = 0");
    const again = read(printed);
    expect(recipeTable(again)).toEqual(recipeTable(recipe));
    expect(recipeDifference(JSON.parse(JSON.stringify(recipeTable(recipe))), recipeTable(again))).toBeUndefined();
  });

  test("functional tokens are added to the model's vocabulary where the recipe says so", () => {
    const specOf = (recipe: Recipe) => createSpec(recipe, {}, undefined);
    expect(specOf(read(small)).addTokens).toBeUndefined();
    expect(specOf(read(`functions = "text"\n${small}`)).addTokens).toBeUndefined();
    expect(specOf(read(`functions = "tokens"\n${small}`)).addTokens).toEqual(TAG_TOKENS);
    const withRate = `functions = "tokens"\n${small}tokensLr = 1e-3\n`;
    expect(read(withRate).stages[1].settings.tokensLr).toBe(1e-3);
    expect(mistake(withRate.replace('"tokens"', '"text"'))).toBe(
      'recipe.toml: `stage.2.tokensLr` is of use with `functions = "tokens"` alone; add that or take it out',
    );
  });

  test("a search over functions needs them as tokens, and says so before anything runs", () => {
    const searched = 'model = "tiny"\ntask = "tagged"\n[[stage]]\nmethod = "rftt"\nsteps = 1\n';
    expect(mistake(searched)).toBe(
      'recipe.toml: `stage.1` searches over functions, each of which has to be one token; add `functions = "tokens"` to the recipe, or set search = "none"',
    );
    expect(read(`functions = "tokens"\n${searched}`).stages).toHaveLength(1);
    expect(read(`${searched}search = "none"\n`).stages).toHaveLength(1);
  });

  test("an engine that cannot add tokens says what works there", () => {
    const has: Capabilities = {
      losses: [],
      customLoss: true,
      entropy: true,
      heads: true,
      allowed: true,
      addTokens: false,
      fullFineTune: true,
      gradClip: true,
      snapshots: true,
      deterministicSeed: true,
    };
    const recipe = (functions: string) => read(`functions = "${functions}"\n${small}`);
    expect(() => checkCapabilities(recipe("text"), has)).not.toThrow();
    expect(() => checkCapabilities(recipe("tokens"), has)).toThrow('with functions = "text" the model spells the tags');
  });

  test.each([
    ['method = "motif"', "frozenBase", '`stage.1.continuationPolicy`: "frozenBase" is the recipe\'s model without'],
    ['method = "motif"\nformat = "tagged"', "current", "`stage.1.format`: the stage asks in rounds"],
  ])("a stage in rounds: %s, %s", (stage, policy, message) => {
    const text = `model = "tiny"\ntask = "lists"\n[[stage]]\nsteps = 1\ncontinuationPolicy = "${policy}"\n${stage}`;
    expect(mistake(text)).toContain(`recipe.toml: ${message}`);
    read(text.replace('format = "tagged"', ""), ["model=a-model"]);
  });

  test.each(["rounds = 2", "mixture = [{}, { rounds = 2 }]", 'method = "selftrain"\nrounds = 2\ndemonstrations = 0'])(
    "a format counts for nothing beside %s",
    (settings) => {
      const own = settings.startsWith("method") ? settings : `method = "sft"\n${settings}`;
      const text = `model = "tiny"\ntask = "lists"\n[[stage]]\nsteps = 1\nformat = "tagged"\n${own}`;
      expect(mistake(text)).toContain("recipe.toml: `stage.1.format`: the stage asks in rounds");
    },
  );

  test("broken TOML is named by line and column", () => {
    expect(mistake('model = "tiny"\ntask = \n')).toMatch(/^recipe\.toml:2:\d+: not valid TOML: /);
  });

  test.each([
    ["sed = 1", "recipe.toml: unknown key `sed` (did you mean `seed`?)"],
    ["lora = { rank = 8, alfa = 16 }", "recipe.toml: unknown key `lora.alfa` (did you mean `alpha`?)"],
    ["checkpoint = { evry = 3 }", "recipe.toml: unknown key `checkpoint.evry` (did you mean `every`?)"],
    ["eval = { every = 0 }", "recipe.toml: `eval.every`: expected a number above 0, found 0"],
    ["eval = { every = 2.5 }", "recipe.toml: `eval.every`: a whole number, found 2.5"],
    ["eval = { limit = 20 }", "recipe.toml: `eval.every` is missing"],
    [
      'eval = { every = 20, format = "tagged", rounds = 2 }',
      "recipe.toml: `eval.format`: rounds have a prompt of their own, so that a format counts for nothing",
    ],
    ["eval = { every = 20, limit = 0 }", "recipe.toml: `eval.limit`: expected a number above 0, found 0"],
    ['eval = { every = 20, split = "dve" }', "recipe.toml: `eval.split`: "],
    ["eval = { evry = 20 }", "recipe.toml: unknown key `eval.evry` (did you mean `every`?)"],
    ["checkpoint = { every = 0 }", "recipe.toml: `checkpoint.every`: expected a number above 0, found 0"],
    ["checkpoint = { keep = 0 }", "recipe.toml: `checkpoint.keep`: expected a number above 0, found 0"],
    [
      'checkpoint = { keepBest = "dev accuracy" }',
      'recipe.toml: `checkpoint.keepBest`: no stage measures "dev accuracy" (there are loss, reward, solveRate; an accuracy needs eval = { every = 20 })',
    ],
    [
      'eval = { every = 20 }\ncheckpoint = { keepBest = "dev acuracy" }',
      'recipe.toml: `checkpoint.keepBest`: no stage measures "dev acuracy" (did you mean "dev accuracy"?)',
    ],
    [
      'eval = { every = 20, split = "test" }\ncheckpoint = { keepBest = "dev accuracy" }',
      'no stage measures "dev accuracy" (did you mean "test accuracy"?)',
    ],
    ['checkpoint = { keepBest = "solverate" }', 'no stage measures "solverate" (did you mean "solveRate"?)'],
    ["seed = -1", "recipe.toml: `seed`:"],
    ["lora = { rank = 8 }", "recipe.toml: `lora.alpha` is missing: expected number"],
    ['seed = "one"', 'recipe.toml: `seed`: expected number, found "one"'],
    ['lora = { rank = 8, alpha = 1, targets = ["q", "x"] }', "recipe.toml: `lora.targets.2`:"],
    ['functions = "token"', 'recipe.toml: `functions`: expected one of "tokens"|"text", found "token"'],
  ])("at the top: %s", (line, message) => {
    expect(mistake(`${line}\n${small}`)).toContain(message);
  });

  test.each([
    ["sampels = 4", "unknown key `stage.2.sampels` (did you mean `samples`?)"],
    ['schedule = { kind = "cosine", warmpu = 3 }', "unknown key `stage.2.schedule.warmpu` (did you mean `warmup`?)"],
    ['schedule = { kind = "cosin" }', "`stage.2.schedule"],
    ['schedule = { kind = "constant", final = 0.1 }', "unknown key `stage.2.schedule.final`"],
    [
      "epochs = 1",
      "`stage.2` needs exactly one of epochs, steps, generatedTokens, engineSeconds, or marks, to say how long it runs; found epochs and steps",
    ],
    ["stopAt = 30", "`stage.2.stopAt` (30) lies beyond the stage's 20 steps"],
    ['from = "1-stf"', '`stage.2.from`: there is no earlier stage "1-stf" (did you mean "1-sft"?)'],
    [
      'from = "previous-best"',
      '`stage.2.from` is "previous-best", and nothing says which is best: set checkpoint.keepBest',
    ],
    [
      'from = "previous-bset"',
      '`stage.2.from`: there is no earlier stage "previous-bset" (did you mean "previous-best"?)',
    ],
    ["patience = 3", "`stage.2.patience` counts evaluations, and the recipe has none: add eval = { every = 20 }"],
    ["patience = 0", "`stage.2.patience`: expected a number above 0, found 0"],
    ["marks = { generatedTokens = 1000 }", "`stage.2.marks`: stand in place of steps; leave one of them out"],
    ["marks = { steps = 10 }", "unknown key `stage.2.marks.steps` (valid keys: generatedTokens, engineSeconds)"],
    ["marks = {}", "`stage.2.marks`: expected one or both of generatedTokens, engineSeconds"],
    ["marks = { engineSeconds = 0 }", "`stage.2.marks.engineSeconds`: expected a number above 0, found 0"],
    ['from = "./nowhere"', "`stage.2.from`: there is no folder"],
    ["minibatches = 3", "`stage.2.minibatches`"],
    ["samples = 1", "`stage.2.samples`"],
    [
      '[[stage]]\nmethod = "selftrain"\ngeneratedTokens = 1000',
      "`stage.3.generatedTokens`: selftrain generates nothing while it trains",
    ],
  ])("in a stage: %s", (line, message) => {
    expect(mistake(`${small}${line}\n`)).toContain(message);
  });

  test("marks are the budget; what they cannot stand beside is refused", () => {
    const marked = (stage: string) => `model = "tiny"\ntask = "t"\n[[stage]]\nmethod = "grpo"\n${stage}`;
    const text = marked(
      "marks = { generatedTokens = 1e6, engineSeconds = 60 }\nschedule = { kind = 'constant', warmup = 5 }",
    );
    const recipe = read(text);
    expect(recipe.stages[0]).toMatchObject({
      marks: { generatedTokens: 1e6, engineSeconds: 60 },
      budget: {
        kind: "marks",
        measures: [
          { kind: "generatedTokens", amount: 1e6 },
          { kind: "engineSeconds", amount: 60 },
        ],
      },
    });
    expect(recipeTable(read(recipeToml(recipe)))).toEqual(recipeTable(recipe));
    const one = read(marked('marks = { generatedTokens = 1e6 }\nschedule = { kind = "cosine" }'));
    expect(one.stages[0].budget).toEqual({ kind: "generatedTokens", amount: 1e6 });
    expect(recipeTable(read(recipeToml(one)))).toEqual(recipeTable(one));
    const marks = "marks = { generatedTokens = 1e6, engineSeconds = 60 }\n";
    for (const [rest, message] of [
      ['schedule = { kind = "cosine" }', "`stage.1.schedule`: several marks need a constant learning rate"],
      [
        "schedule = { kind = 'constant', warmup = 0.1 }",
        "`stage.1.schedule.warmup`: with several marks a warm-up is a whole number",
      ],
      ["stopAt = 3", "`stage.1.stopAt`: a stage with marks ends when the last is passed"],
      ["patience = 3", "`stage.1.patience`: a stage with marks ends when the last is passed"],
    ]) {
      expect(mistake(marked(marks + rest))).toContain(message);
    }
  });

  test("the best of the stage before needs a stage before that is judged", () => {
    const judged = `checkpoint = { keepBest = "solveRate" }\n${small}`;
    expect(mistake(`${judged}from = "previous-best"\n`)).toContain('stage 1-sft does not measure "solveRate"');
    const first = judged.replace("epochs = 2", 'epochs = 2\nfrom = "previous-best"');
    expect(mistake(first)).toContain("`stage.1.from`: the first stage has none before it");
    const text = `eval = { every = 5 }\n${judged.replace("solveRate", "dev accuracy")}from = "previous-best"\npatience = 3\n`;
    const recipe = read(text);
    expect(recipe.eval).toEqual({ every: 5, limit: 200, split: "dev", maxTokens: 512 });
    expect(recipeTable(read(recipeToml(recipe)))).toEqual(recipeTable(recipe));
  });

  test("a stage without a budget, an unknown method, no stage at all", () => {
    expect(mistake('model = "tiny"\ntask = "t"\n[[stage]]\nmethod = "sft"')).toContain("exactly one of");
    expect(mistake('model = "tiny"\ntask = "t"\n[[stage]]\nmethod = "gpro"\nsteps = 1')).toContain(
      '`stage.1.method`: there is no method "gpro" (did you mean "grpo"?)',
    );
    expect(mistake('model = "tiny"\ntask = "t"\n[[stage]]\nsteps = 1')).toContain("`stage.1.method` is missing");
    expect(mistake('model = "tiny"\ntask = "t"')).toContain("`stage`");
    expect(mistake('task = "t"\n[[stage]]\nmethod = "sft"\nsteps = 1')).toContain("`model` is missing");
  });

  test("any key with one letter changed is refused, and the right one is suggested", () => {
    const keys = ["prompts", "samples", "temperature", "maxTokens", "innerPasses", "weightDecay", "schedule"];
    fc.assert(
      fc.property(fc.constantFrom(...keys), fc.nat(), fc.constantFrom("x", "z", "0"), (key, at, letter) => {
        const i = at % key.length;
        fc.pre(key[i] !== letter);
        const wrong = key.slice(0, i) + letter + key.slice(i + 1);
        expect(mistake(`${small}${wrong} = 1\n`)).toContain(
          `unknown key \`stage.2.${wrong}\` (did you mean \`${key}\`?)`,
        );
      }),
    );
  });

  test("any unknown key is refused by its path", () => {
    const known = [...Object.keys(recipeTable(read(small))), "stage"];
    fc.assert(
      fc.property(fc.stringMatching(/^[A-Za-z_][A-Za-z0-9_-]{0,12}$/), (key) => {
        fc.pre(!known.includes(key));
        expect(mistake(`${key} = 1\n${small}`)).toContain(`unknown key \`${key}\``);
      }),
    );
  });
});

describe("overrides", () => {
  test("by stage number, by method, at the top, in a table that was absent", () => {
    const recipe = read(small, ["stage.1.lr=2e-5", "grpo.lr=3e-6", "seed=7", "lora.rank=4", "lora.alpha=8"]);
    expect(recipe.stages.map((stage) => stage.lr)).toEqual([2e-5, 3e-6]);
    expect(recipe.seed).toBe(7);
    expect(recipe.lora).toEqual({ rank: 4, alpha: 8 });
    expect(read(small, ["stage.2.schedule.kind=linear"]).stages[1].schedule.kind).toBe("linear");
    expect(read(small, ["model=./m"]).model).toBe(resolve("/recipes", "m"));
  });

  test.each([
    ["stage.3.lr=1", "no such stage (it has 2)"],
    ["stage.0.lr=1", "numbered from 1"],
    ["grpo=1", "name a key of the stage"],
    ["lr", "expected key=value"],
    ["stage.2.lrr=1", "unknown key `stage.2.lrr` (did you mean `lr`?)"],
    ["seed.x=1", "`seed`: expected number"],
    ["model.x=1", "`model` is not a table"],
    ["__proto__.x=1", "unknown key `__proto__`"],
  ])("%s is refused", (override, message) => {
    expect(mistake(small, [override])).toContain(message);
    expect(Object.hasOwn(Object.prototype, "x")).toBe(false);
  });
});

describe("paths", () => {
  test("resolve against the recipe's folder; names stay names", () => {
    const dir = mkdtempSync(join(tmpdir(), "rifft-recipe-"));
    mkdirSync(join(dir, "weights"));
    const file = join(dir, "r.toml");
    const write = (top: string) => writeFileSync(file, `${top}\n[[stage]]\nmethod = "sft"\nsteps = 1\n`);
    write('model = "weights"\ntask = "my-task.ts"');
    expect(readRecipe(file)).toMatchObject({
      model: join(dir, "weights"),
      task: join(dir, "my-task.ts"),
      baseDir: dir,
    });
    write('model = "owner/name"\ntask = { name = "gsm8k", path = "./data" }');
    expect(readRecipe(file)).toMatchObject({ model: "owner/name", task: { name: "gsm8k", path: join(dir, "data") } });
    expect(() => readRecipe(join(dir, "none.toml"))).toThrow(UserError);
  });
});

test("recipeDifference names the first key that changed", () => {
  const before = recipeTable(read(small));
  const after = recipeTable(read(small, ["stage.2.schedule.warmup=3", "stage.2.schedule.kind=constant"]));
  expect(recipeDifference(before, after)).toEqual({ key: "stage.2.schedule.warmup", before: 0, now: 3 });
  expect(recipeDifference(before, recipeTable(read(small, ["context=64"])))).toEqual({
    key: "context",
    before: undefined,
    now: 64,
  });
});

describe("choosing on the test split", () => {
  const chooses = `eval = { every = 5, split = "test" }\ncheckpoint = { keepBest = "test accuracy" }\n`;

  test("is refused, by keepBest or patience, unless the recipe reproduces a reference that does so", () => {
    expect(mistake(chooses + small)).toContain("`checkpoint.keepBest` would choose on the test split");
    const patient = `eval = { every = 5, split = "test" }\n${small}patience = 3`;
    expect(mistake(patient)).toContain("`stage.2.patience` would choose on the test split");
    expect(read(`selection = "reference"\n${chooses}${small}`).selection).toBe("reference");
    expect(read(`selection = "reference"\n${patient}`).selection).toBe("reference");
  });

  test("evaluating there without a choice is allowed; a reference that does not choose there is a mistake", () => {
    expect(read(`eval = { every = 5, split = "test" }\n${small}`).selection).toBeUndefined();
    expect(
      read(`selection = "dev"\neval = { every = 5 }\ncheckpoint = { keepBest = "dev accuracy" }\n${small}`),
    ).toBeDefined();
    const mild = `selection = "reference"\neval = { every = 5 }\ncheckpoint = { keepBest = "dev accuracy" }\n${small}`;
    expect(mistake(mild)).toContain('`selection` = "reference" chooses on the test split, and this recipe does not');
  });
});
