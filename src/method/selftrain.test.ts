import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import { letters, problems, repeats, vocabulary } from "../../test/letters.ts";
import { memoryStage } from "../../test/stage.ts";
import { LocalEngine } from "../engine/local/index.ts";
import type { Loss, Model } from "../engine/types.ts";
import type { Forest, Segment, Tree } from "../forest/types.ts";
import { createTask } from "../task/create.ts";
import type { Problem, Reward, RoundsDefinition } from "../task/types.ts";
import { selection, selftrain, selftrainSettings } from "./selftrain.ts";
import { sft, sftSettings } from "./sft.ts";
import type { StoredSample } from "./stage.ts";

const engine = new LocalEngine({ threads: 1 });
afterAll(() => engine.close());
const tiny = (seed = 3) => engine.create({ base: "tiny", train: "full", vocabulary, seed });

async function run(
  settings: Record<string, unknown>,
  o: {
    steps?: number;
    train?: Problem[];
    reward?: (p: Problem, response: string) => Reward;
    model?: Model;
    rounds?: RoundsDefinition;
    stored?: StoredSample[];
  } = {},
) {
  const { steps = 1, train = problems, reward = repeats, model = await tiny() } = o;
  const task = createTask({ name: "letters", splits: { train }, reward, rounds: o.rounds });
  const { stage, recorded } = await memoryStage({ model, task, steps, lr: 3e-3, stored: o.stored });
  await selftrain(
    stage,
    selftrainSettings.parse({
      prompts: 3,
      samples: 16,
      maxTokens: 3,
      topK: 0,
      batch: 8,
      demonstrations: 0,
      ...settings,
    }),
  );
  const sampling = recorded.filter(({ updates }) => updates === 0);
  return { model, sampling, training: recorded.slice(sampling.length) };
}

describe("which samples are kept", () => {
  const word = fc.constantFrom(" x", "x", "x ", "xy", "y", "", "z\n", "z");
  const sample = fc.record({ text: word, correct: fc.boolean(), stop: fc.constantFrom("eos", "length", "stop") });
  const segment = ({ text, correct, stop }: { text: string; correct: boolean; stop: string }): Segment => ({
    parent: 0,
    tokens: Int32Array.from(text, (letter) => letter.charCodeAt(0)),
    source: "policy",
    fields: {},
    outcome: { correct: Number(correct), style: 0.5, reward: Number(correct) + 0.5 },
    stop: stop === "eos" || stop === "stop" ? stop : "length",
  });
  const root: Segment = { parent: -1, tokens: Int32Array.of(63), source: "prompt", fields: {} };
  const textOf = (tokens: Int32Array) => String.fromCharCode(...tokens);

  test("the first `keep` of the correct ones that differ in more than outer blanks, in the order drawn", () => {
    fc.assert(
      fc.property(
        fc.array(fc.array(sample, { maxLength: 12 }), { maxLength: 4 }),
        fc.integer({ min: 1, max: 5 }),
        (groups, keep) => {
          const forest: Forest = groups.map((group, g): Tree => ({
            id: `t${g}`,
            problem: `p${g}`,
            segments: [root, ...group.map(segment)],
          }));
          const selected = selection(forest, textOf, { keep });
          groups.forEach((group, g) => {
            const right = group.filter(({ correct }) => correct).map(({ text }) => text);
            const firsts = right.filter((text, i) => right.findIndex((other) => other.trim() === text.trim()) === i);
            expect(selected[g].problem).toBe(`p${g}`);
            expect(selected[g].unique).toBe(firsts.length);
            expect(selected[g].kept.map(([{ target }]) => textOf(target))).toEqual(firsts.slice(0, keep));
            expect([...selected[g].texts]).toEqual(firsts.slice(0, keep).map((text) => text.trim()));
          });
        },
      ),
    );
  });

  test("right is what the part `correct` says, else a reward of 1", () => {
    const of = (outcome: Record<string, number>) => ({
      ...segment({ text: "x", correct: true, stop: "eos" }),
      outcome,
    });
    const kept = (outcome: Record<string, number>) =>
      selection([{ id: "t", problem: "p", segments: [root, of(outcome)] }], textOf, { keep: 1 })[0].unique;
    expect(kept({ reward: 1 })).toBe(1);
    expect(kept({ reward: 0.9 })).toBe(0);
    expect(kept({ reward: 1.5, correct: 0 })).toBe(0);
    expect(kept({ reward: 0.5, correct: 1 })).toBe(1);
  });
});

describe("selftrain", () => {
  test("samples every problem once, then trains on what was right, exactly as it was sampled", async () => {
    const trained: string[] = [];
    const inner = await tiny();
    const model: Model = Object.assign(Object.create(inner), {
      forwardBackward(forest: Forest, loss: Loss) {
        trained.push(...forest.map(({ segments: [prompt, target] }) => `${prompt.tokens} ${target.tokens}`));
        return inner.forwardBackward(forest, loss);
      },
    });
    const { sampling, training } = await run({ restart: "stage-start" }, { steps: 40, model });
    expect(sampling.map(({ kept }) => kept.length)).toEqual([3, 1]);
    expect(new Set(sampling.flatMap(({ kept }) => kept.map(({ problem }) => problem)))).toEqual(new Set(letters));
    const right = sampling.flatMap(({ kept }) =>
      kept.flatMap(({ segments }) => segments.filter(({ outcome }) => outcome?.reward === 1)),
    );
    const solveRate = right.length / 64;
    expect((3 * sampling[0].metrics.solveRate + sampling[1].metrics.solveRate) / 4).toBeCloseTo(solveRate, 12);
    const chosen = sampling.flatMap(({ kept }) =>
      kept.flatMap(({ segments: [prompt, ...samples] }) =>
        samples.filter(({ outcome }) => outcome?.reward === 1).map(({ tokens }) => `${prompt.tokens} ${tokens}`),
      ),
    );
    const distinct = new Set(chosen);
    for (const row of trained) expect(distinct).toContain(row);
    expect(new Set(trained).size).toBe(training[0].metrics.kept);
    expect(training).toHaveLength(40);
    expect(training[0].metrics.unique).toBe(sampling[0].metrics.unique + sampling[1].metrics.unique);
    expect(training[0].metrics.examples).toBe(training[0].metrics.kept);
    expect(training[1].metrics).not.toHaveProperty("examples");
    expect(training.at(-1)?.metrics.loss).toBeLessThan(training[0].metrics.loss);
  });

  test("stored samples in place of its own: the same are kept, no step samples", async () => {
    const { sampling, training } = await run({ restart: "stage-start", demonstrations: 1 }, { steps: 2 });
    const stored = sampling
      .flatMap(({ kept }) => kept)
      .flatMap(({ problem, segments: [, ...samples] }) =>
        samples.map(({ tokens, outcome }): StoredSample => ({
          problem,
          text: "",
          tokens,
          solved: outcome?.reward === 1,
          answered: true,
        })),
      );
    const again = await run({ stored: "stored.jsonl", demonstrations: 1 }, { steps: 2, stored });
    expect(again.sampling).toEqual([]);
    const [own, others] = [training, again.training].map(([{ metrics }]) => metrics);
    for (const count of ["kept", "unique", "unsolved", "examples"]) expect(others[count]).toBe(own[count]);
  });

  test("the policy gets better", async () => {
    const { model, sampling } = await run({ restart: "base", samples: 32 }, { steps: 80 });
    const after = await run({ samples: 32 }, { steps: 0, model });
    const rate = (steps: typeof sampling) => (3 * steps[0].metrics.solveRate + steps[1].metrics.solveRate) / 4;
    expect(rate(sampling)).toBeLessThan(0.4);
    expect(rate(after.sampling)).toBeGreaterThan(0.8);
  });

  test("from the base it trains what a new model would; from the stage's start, the policy that sampled", async () => {
    const warm = async () => {
      const model = await tiny();
      const task = createTask({ name: "letters", splits: { train: problems }, reward: repeats });
      const { stage } = await memoryStage({ model, task, steps: 10, lr: 3e-3 });
      await sft(stage, sftSettings.parse({ batch: 4 }));
      return model;
    };
    const losses: number[] = [];
    for (const restart of ["base", "stage-start"]) {
      const { training } = await run({ restart }, { model: await warm() });
      losses.push(training[0].metrics.loss);
    }
    expect(losses[0]).toBeGreaterThan(1.3);
    expect(losses[1]).toBeLessThan(losses[0] - 0.3);
  });

  test("demonstrations are added once, unless the same text is kept, or twice as in the authors' data", async () => {
    // Greedy enough to draw one text a problem, the demonstration's own for those that end in "!".
    const reward = (_: Problem, response: string) => Number(response.length > 0);
    const count = async (demonstrations: number, train = problems) =>
      (await run({ demonstrations, keep: 1 }, { reward, train })).training[0].metrics.examples;
    const none = await count(0);
    expect(none).toBe(4);
    expect(await count(1)).toBeGreaterThan(none);
    expect(await count(1)).toBeLessThanOrEqual(none + 4);
    expect((await count(2)) - (await count(1))).toBe(4);
    const same = problems.map((p) => ({ ...p, demonstrations: undefined }));
    expect(await count(1, same)).toBe(4);
    // A demonstration that was sampled too stands there once.
    const { training } = await run(
      { demonstrations: 1, samples: 64, maxTokens: 2, keep: 100 },
      { reward: (p, response) => Number(response === p.demonstrations?.[0]) },
    );
    expect(training[0].metrics.examples).toBe(4);
  });

  test("problems that the cap on tokens leaves out have no samples", async () => {
    const { sampling, training } = await run({ prompts: 1, sampleTokens: 50, demonstrations: 1 }, { reward: () => 1 });
    expect(sampling).toHaveLength(2);
    expect(training[0].metrics.unsolved).toBe(0);
    expect(training[0].metrics.examples).toBeGreaterThan(training[0].metrics.kept);
  });

  test("nothing right is an error; everything right is none", async () => {
    await expect(run({}, { reward: () => 0 })).rejects.toThrow(/none of the samples of 4 questions is right/);
    const { sampling, training } = await run({ keep: 2 }, { reward: () => 1 });
    expect(sampling[0].metrics.solveRate).toBe(1);
    expect(training[0].metrics).toMatchObject({ kept: 8, unsolved: 0 });
  });
});

describe("SFT on accepted demonstrations", () => {
  const flawed = problems.map((p, i) => ({ ...p, demonstrations: i < 2 ? ["?", `${p.id}!`] : ["?"] }));
  const train = async (reward: (p: Problem, response: string) => Reward, all = flawed) => {
    const graded: string[] = [];
    const task = createTask({
      name: "letters",
      splits: { train: all },
      reward: (p, response) => {
        graded.push(`${p.id} ${response}`);
        return reward(p, response);
      },
    });
    const { stage, recorded } = await memoryStage({ model: await tiny(), task, steps: 40, lr: 3e-3 });
    await sft(stage, sftSettings.parse({ batch: 3, accepted: true }));
    return { graded, recorded };
  };

  test("rejected ones are passed over, each is graded once, and a step keeps its batch", async () => {
    const { graded, recorded } = await train(repeats);
    expect([...graded].sort()).toEqual(["a ?", "a a!", "b ?", "b b!", "c ?", "d ?"]);
    for (const { metrics } of recorded) expect(metrics.responseLength).toBe(3);
    expect(recorded.at(-1)?.metrics.loss).toBeLessThan(0.1);
  });

  test("none accepted is an error", async () => {
    await expect(train(() => 0)).rejects.toThrow(/task letters accepts none of \d problems' demonstrations/);
  });

  test("in rounds: every round of a chain that ends right is an example, of others none", async () => {
    const trained: string[] = [];
    const inner = await tiny();
    const model: Model = Object.assign(Object.create(inner), {
      forwardBackward(forest: Forest, loss: Loss) {
        trained.push(...forest.map(({ segments: [prompt, target] }) => `${prompt.tokens} ${target.tokens}`));
        return inner.forwardBackward(forest, loss);
      },
    });
    // A round is handed the letter with which the one before began.
    const rounds: RoundsDefinition = {
      prompt: ({ answer }, _, __, progress) => ({
        text: progress === undefined ? `${answer}?` : `${answer}${progress}?`,
      }),
      progress: (response) => response[0],
      final: (response) => response.startsWith("!"),
    };
    const { sampling } = await run({ rounds: 3, adaptive: true, restart: "stage-start", keep: 99 }, { steps: 20, model, rounds }); // prettier-ignore
    const trees = sampling.flatMap(({ kept }) => kept);
    const byId = new Map(trees.map((tree) => [tree.id, tree]));
    const caused = new Set(trees.flatMap(({ cause }) => (cause ? [`${cause.tree}/${cause.segment}`] : [])));
    const [right, wrong] = [new Set<string>(), new Set<string>()];
    for (const tree of trees) {
      tree.segments.slice(1).forEach((end, i) => {
        if (caused.has(`${tree.id}/${i + 1}`)) return expect(end.outcome).toBeUndefined();
        const rows: string[] = [];
        let at: { tree: string; segment: number } | undefined = { tree: tree.id, segment: i + 1 };
        for (; at !== undefined; at = byId.get(at.tree)?.cause) {
          const { segments } = byId.get(at.tree) ?? tree;
          rows.push(`${segments[0].tokens} ${segments[at.segment].tokens}`);
        }
        for (const row of rows) (end.outcome?.reward === 1 ? right : wrong).add(row);
      });
    }
    expect(right.size).toBeGreaterThan(6);
    for (const row of trained) expect(right).toContain(row);
    expect(trained.filter((row) => wrong.has(row) && !right.has(row))).toEqual([]);
    expect(new Set(trained.map((row) => row.split(" ")[0].split(",").length))).toEqual(new Set([2, 3]));
  });

  test("rounds and whole demonstrations do not go together", () => {
    expect(() => selftrainSettings.parse({ rounds: 3 })).toThrow(/set demonstrations = 0/);
    expect(selftrainSettings.parse({ rounds: 3, demonstrations: 0 }).rounds).toBe(3);
  });
});
