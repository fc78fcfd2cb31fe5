import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { parseRecipe } from "../run/recipe.ts";
import { FAMILY, type Member } from "./family.ts";
import { grpoSettings } from "./grpo.ts";
import { sftSettings } from "./sft.ts";
import { adam } from "./update.ts";

const issueOf = (settings: object) => grpoSettings.safeParse(settings).error?.issues[0];

describe("settings", () => {
  test("defaults stand for themselves", () => {
    expect(sftSettings.parse({})).toEqual({
      batch: 48,
      accepted: false,
      lr: 1e-5,
      betas: [0.9, 0.999],
      eps: 1e-8,
      weightDecay: 0,
      maxGradNorm: 1,
    });
    expect(grpoSettings.parse({})).toMatchObject({ prompts: 8, samples: 8, beta: 0, normalize: "token", lr: 5e-6 });
  });

  test("a mixture says by itself how rounds are shown", () => {
    const mixture = [{}, { rounds: 3 }, { format: "tagged" }];
    expect(sftSettings.parse({ mixture }).mixture).toEqual(mixture);
    for (const other of [{ rounds: 3 }, { accepted: true }, { records: "x" }]) {
      const [issue] = sftSettings.safeParse({ mixture, ...other }).error?.issues ?? [];
      expect(issue).toMatchObject({ path: ["mixture"], message: /each way of a mixture has its own/ });
    }
    expect(sftSettings.safeParse({ mixture: [{}] }).success).toBe(false);
    const both = sftSettings.safeParse({ mixture: [{}, { rounds: 3, format: "tagged" }] });
    expect(both.error?.issues[0]).toMatchObject({ path: ["mixture", 1, "format"] });
  });

  test("a single round is a way of its own", () => {
    expect(sftSettings.parse({ rounds: 1 }).rounds).toBe(1);
    const mixture = [{ rounds: 1 }, { rounds: 3 }];
    expect(sftSettings.parse({ mixture }).mixture).toEqual(mixture);
    expect(sftSettings.safeParse({ rounds: 0 }).success).toBe(false);
  });

  test("unknown keys are refused", () => {
    expect(issueOf({ sample: 4 })).toMatchObject({ code: "unrecognized_keys", keys: ["sample"] });
  });

  test.each([{ topP: 0.9 }, { topK: 20 }])("truncated sampling is refused unless allowed: %o", (cut) => {
    expect(issueOf(cut)).toMatchObject({ path: ["allowTruncated"], message: /needs allowTruncated = true/ });
    expect(issueOf({ ...cut, allowTruncated: true })).toBeUndefined();
  });

  test("minibatches divide the prompts", () => {
    expect(issueOf({ prompts: 6, minibatches: 4 })?.message).toBe(
      "minibatches, which is 4, must divide prompts evenly, which is 6",
    );
    expect(issueOf({ prompts: 6, minibatches: 3 })).toBeUndefined();
  });

  test("maxGradNorm 0 never clips", () => {
    const settings = sftSettings.parse({ maxGradNorm: 0 });
    expect(adam(settings, 0.5)).toEqual({
      groups: { body: { lr: 0.5, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0 } },
      maxGradNorm: undefined,
    });
    expect(adam({ ...settings, maxGradNorm: 1 }, 0.5).maxGradNorm).toBe(1);
  });

  test("functional tokens have a learning rate of their own, which the schedule scales too", () => {
    const settings = sftSettings.parse({ lr: 1e-3, tokensLr: 8e-3 });
    const { groups } = adam(settings, 5e-4);
    expect(groups.body.lr).toBe(5e-4);
    expect(groups.tokens).toEqual({ ...groups.body, lr: 4e-3 });
  });
});

describe("parts of the group family that contradict each other are refused, with the reason", () => {
  const refusal = (method: keyof typeof FAMILY, settings: string) => {
    const text = `model = "tiny"\ntask = "wordproblems"\n[[stage]]\nmethod = "${method}"\nsteps = 1\n${settings}`;
    try {
      parseRecipe(text, { source: "r.toml", baseDir: "/" });
    } catch (error) {
      return String(error);
    }
    return "";
  };

  test.each([
    ["grpo", "samples = 1", /`stage\.1\.samples`: baseline = "group" compares .* needs 2 samples or more, found 1/],
    ["rloo", "samples = 1", /baseline = "leave-one-out" compares .* needs 2 samples or more/],
    ["grpo", 'baseline = "batch"', /`stage\.1\.scale`: scale = "group" needs baseline = "group" or "leave-one-out"/],
    ["reinforce", 'scale = "batch"', /baseline = "running" would count for nothing/],
    ["reinforce++", "dropFlatGroups = true", /under baseline = "batch" a group of equal rewards does/],
    ["grpo", "refills = 2", /`stage\.1\.refills`: refills take the places of groups that dropFlatGroups = true/],
    ["rloo", 'clip = "surrogate"', /`stage\.1\.clipLow`: clip = "surrogate" needs clipLow and clipHigh/],
    ["rloo", "clipLow = 0.2", /clip = "none" clips nothing, so clipLow would count for nothing/],
    ["grpo", 'clip = "none"\nclipHigh = 0.3', /clip = "none" clips nothing, so clipHigh would count for nothing/],
    ["cispo", 'ratio = "sequence"', /needs ratio = "token"/],
    ["grpo", "overlongBuffer = 0.5", /overlongBuffer says where overlongPenalty begins, and that is 0/],
    ["dapo", "overlongBuffer = 32\nmaxTokens = 16", /overlongBuffer lies within maxTokens, which is 16/],
    ["dapo", "overlongBuffer = 1.5", /`stage\.1\.overlongBuffer`: a fraction below 1 of maxTokens, or a whole number/],
    [
      "gspo",
      "prompts = 6",
      /`stage\.1\.minibatches`: minibatches, which is 4, must divide prompts evenly, which is 6$/,
    ],
    ["grpo", 'kl = "k1"', /`stage\.1\.kl`: beta = 0 has no KL penalty/],
    ["rloo", 'reference = "base"', /`stage\.1\.reference`: beta = 0 has no KL penalty/],
    ["grpo", 'baseline = "mean"', /`stage\.1\.baseline`: expected one of "group"\|"leave-one-out"\|"batch"\|"running"/],
    ["dapo", "scaleByStd = false", /unknown key `stage\.1\.scaleByStd`/],
  ] as const)("%s, %s", (method, settings, message) => {
    expect(refusal(method, settings)).toMatch(message);
  });

  test.each([
    ["grpo", 'clip = "none"'],
    ["reinforce++", 'baseline = "group"'],
    ["reinforce++", "samples = 1"],
    ["reinforce", "samples = 1"],
    ["rloo", 'clip = "surrogate"\nclipLow = 0.2\nclipHigh = 0.2'],
    ["grpo", 'ratio = "sequence"\nclip = "none"'],
    ["reinforce++", "beta = 0"],
    ["grpo", 'beta = 0.1\nkl = "k1"\nreference = "base"'],
  ] as const)("%s, %s can be had", (method, settings) => {
    expect(refusal(method, settings)).toBe("");
  });

  test("a member's defaults are its row of the table", () => {
    for (const [name, { paper, ...parts }] of Object.entries<Member>(FAMILY)) {
      const text = `model = "tiny"\ntask = "wordproblems"\n[[stage]]\nmethod = "${name}"\nsteps = 1\n`;
      const [stage] = parseRecipe(text, { source: "r.toml", baseDir: "/" }).stages;
      expect(stage.settings).toMatchObject({ ...parts, prompts: 8, lr: 5e-6 });
      expect(paper).not.toBe("");
    }
  });

  test("docs/methods/grpo.md has the table", () => {
    const text = readFileSync(join(import.meta.dirname, "../../docs/methods/grpo.md"), "utf8");
    const rows = text.split("\n").map((line) => line.split("|").map((cell) => cell.trim()).slice(1, -1)); // prettier-ignore
    const header = rows.find(([first, second]) => first === "`method`" && second === "paper") ?? [];
    for (const [name, member] of Object.entries<Member>(FAMILY)) {
      const row = rows.find((cells) => cells[0] === `\`${name}\`` && cells.length === header.length) ?? [];
      const { paper, ...parts } = { clipLow: "-", clipHigh: "-", ...member };
      const named = Object.fromEntries(header.slice(2).map((key, i) => [key.replaceAll("`", ""), row[i + 2]]));
      expect(row[1]).toContain(paper);
      expect(named).toEqual(Object.fromEntries(Object.entries(parts).map(([key, value]) => [key, String(value)])));
    }
  });

  test("a method's name that is nearly right", () => {
    expect(refusal("grpo", "").length).toBe(0);
    const text = 'model = "tiny"\ntask = "wordproblems"\n[[stage]]\nmethod = "drgrpo"\nsteps = 1\n';
    expect(() => parseRecipe(text, { source: "r.toml", baseDir: "/" })).toThrow('did you mean "dr-grpo"?');
  });
});
