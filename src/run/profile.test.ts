import { appendFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeEach, describe, expect, test } from "vitest";
import type { EvaluationSettings } from "../eval/report.ts";
import { createTask } from "../task/create.ts";
import type { Problem } from "../task/types.ts";
import { EvaluationFile } from "./evaluation.ts";
import { trainingProblems } from "./profile.ts";
import { parseRecipe } from "./recipe.ts";

const root = mkdtempSync(join(tmpdir(), "rifft-profile-"));
afterAll(() => rmSync(root, { recursive: true }));

const problems = Array.from({ length: 8 }, (_, i): Problem => ({ id: `p${i}`, prompt: { text: `${i}` } }));
const task = (name = "t", train = problems) =>
  createTask({ name, splits: { train, dev: [problems[0]] }, reward: () => 0 });
const settings: EvaluationSettings = {
  model: "m",
  task: "t",
  split: "train",
  prompt: "own",
  mode: "reward",
  strict: [],
  flexible: [],
  n: 4,
  temperature: 1,
  maxTokens: 8,
  seed: 0,
};

let dir = "";
let count = 0;
beforeEach(() => {
  dir = join(root, String(count++));
  mkdirSync(dir);
});

/** Problem i of eight is solved `i` times of four at most. */
function makeProfile(
  changes: { settings?: Partial<EvaluationSettings>; of?: Problem[]; samples?: number; cost?: boolean } = {},
) {
  const of = changes.of ?? problems;
  const file = new EvaluationFile(dir, { ...settings, ...changes.settings }, "w", of);
  file.begin("plan");
  const total = changes.samples ?? 4 * of.length;
  for (let i = 0; i < total; i++) {
    const [p, sample] = [Math.floor(i / 4), i % 4];
    const solved = sample < p;
    const strict = { verdict: solved ? ("equal" as const) : ("different" as const), rule: "reward", reason: "" };
    const line = { problem: of[p].id, sample, text: "", tokens: [1], logprobs: [-1], stop: "eos" as const };
    file.append({ ...line, strict, reward: Number(solved), parts: {}, solved });
  }
  if (changes.cost !== false) file.spent(total, { generated: 100, prefilled: 20, seconds: 2.5 });
  file.close();
  return join(dir, file.file);
}

const recipe = (profile: string, where = "0 < solved < 1", budget = "steps = 3") =>
  parseRecipe(
    `model = "tiny"\ntask = "t"\nprofile = ${JSON.stringify(profile)}\nwhere = "${where}"\n[[stage]]\nmethod = "grpo"\n${budget}`,
    { source: "recipe.toml", baseDir: dir },
  );

describe("the training problems of a profile", () => {
  test("are those that satisfy `where`, in their order, and what they cost is known", async () => {
    const file = makeProfile();
    for (const path of [file, dir, file.slice(dir.length + 1)]) {
      const { source, profile } = await trainingProblems(recipe(path), task());
      expect(Array.from({ length: source.size }, (_, i) => source.at(i).id)).toEqual(["p1", "p2", "p3"]);
      expect(() => source.at(3)).toThrow(RangeError);
      expect(profile?.cost).toEqual({ generated: 100, prefilled: 20, seconds: 2.5 });
      expect(profile?.text).toContain("3 of the 8 that");
    }
    const { source } = await trainingProblems(recipe(file, "solved >= 0.75 and solved <= 1"), task());
    expect(source.size).toBe(5);
  });

  test("without a profile are the split", async () => {
    const plain = parseRecipe('model = "tiny"\ntask = "t"\n[[stage]]\nmethod = "sft"\nsteps = 1', {
      source: "r",
      baseDir: dir,
    });
    const own = task();
    expect(await trainingProblems(plain, own)).toEqual({ source: await own.problems("train") });
  });

  test("may be the first of the split", async () => {
    const file = makeProfile({ of: problems.slice(0, 3) });
    const { source } = await trainingProblems(recipe(file), task());
    expect(Array.from({ length: source.size }, (_, i) => source.at(i).id)).toEqual(["p1", "p2"]);
  });

  const refusal = (made: ReturnType<typeof recipe>, of = task()) =>
    trainingProblems(made, of).then(
      () => "",
      (error: unknown) => String(error),
    );

  test("are refused of another task, another split, changed problems, a profile that is not whole", async () => {
    const file = makeProfile();
    expect(await refusal(recipe(file), task("other"))).toContain("it is of task t, and the recipe's is other");
    const changed = problems.map((p, i) => (i === 7 ? { ...p, prompt: { text: "new" } } : p));
    expect(await refusal(recipe(file), task("t", changed))).toContain(
      "its problems are not the first 8 of t's training split",
    );
    expect(await refusal(recipe(file), task("t", problems.slice(0, 7)))).toContain("are not the first 8");
    expect(await refusal(recipe(makeProfile({ settings: { split: "dev" } })))).toContain("it is of the dev split");
    expect(await refusal(recipe(makeProfile({ settings: { seed: 1 }, cost: false })))).toContain("cost is not known");
    expect(await refusal(recipe(file, "solved > 1"))).toContain(
      'none of its 8 problems satisfies where = "solved > 1"',
    );
    expect(await refusal(recipe("nowhere"))).toContain("does not exist");
    expect(await refusal(recipe(dir))).toContain("expected one samples file in");
    mkdirSync(join(dir, "empty"));
    expect(await refusal(recipe("empty"))).toContain("found none");
    const bare = join(dir, "bare.jsonl");
    writeFileSync(bare, readFileSync(file));
    expect(await refusal(recipe(bare))).toContain("no record lies beside it");
    const lines = readFileSync(file, "utf8").split("\n");
    writeFileSync(file, `${lines.slice(0, 20).join("\n")}\n`);
    expect(await refusal(recipe(file))).toContain("has 20 samples where 32 were written");
  });

  test("are refused while the profile is still being made", async () => {
    expect(await refusal(recipe(makeProfile({ samples: 12 })))).toContain("it has 12 of 32 samples");
  });

  test("are refused where the cost leaves the first stage nothing", async () => {
    const file = makeProfile();
    expect(await refusal(recipe(file, "solved > 0", "generatedTokens = 100"))).toContain(
      "use up the budget of stage 1-grpo",
    );
    expect(await refusal(recipe(file, "solved > 0", "engineSeconds = 2"))).toContain("use up the budget");
    expect(await refusal(recipe(file, "solved > 0", "generatedTokens = 101"))).toBe("");
  });
});

describe("what an evaluation cost", () => {
  test("adds up over interruptions; a chunk whose cost was not written is sampled again", () => {
    const of = Array.from({ length: 40 }, (_, i): Problem => ({ id: `q${i}`, prompt: { text: `${i}` } }));
    const path = makeProfile({ of, samples: 128 });
    // The second chunk is whole, but a kill left it without its cost.
    const first = readFileSync(path, "utf8").split("\n").slice(0, 32);
    appendFileSync(
      path,
      first.map((line) => `${line.replace(/"q(\d)"/, (_, i) => `"q${32 + Number(i)}"`)}\n`).join(""),
    );
    const file = new EvaluationFile(dir, settings, "w", of);
    expect(file.kept).toHaveLength(128);
    file.begin("plan");
    file.spent(160, { generated: 7, prefilled: 3, seconds: 1 });
    file.close();
    const record: unknown = JSON.parse(readFileSync(path.replace(".jsonl", ".json"), "utf8"));
    expect(record).toMatchObject({ cost: { samples: 160, of: 160, generated: 107, prefilled: 23, seconds: 3.5 } });
  });
});

test("profile and where stand together, and where is checked with the recipe", () => {
  const read = (lines: string) => () =>
    parseRecipe(`model = "tiny"\ntask = "t"\n${lines}\n[[stage]]\nmethod = "sft"\nsteps = 1`, {
      source: "r.toml",
      baseDir: dir,
    });
  expect(read('profile = "x"')).toThrow("r.toml: `profile` needs `where` beside it");
  expect(read('where = "solved > 0"')).toThrow("r.toml: `where` needs `profile` beside it");
  expect(read('profile = "x"\nwhere = "solvd > 0"')).toThrow(/r\.toml: `where`: "solvd > 0", column 1: .*did you mean/);
});
