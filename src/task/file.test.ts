import { mkdtempSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, describe, expect, test, vi } from "vitest";
import { loadTask } from "./load.ts";
import type { Grade, Task } from "./types.ts";

const folder = mkdtempSync(join(realpathSync(tmpdir()), "rifft-file-"));
afterAll(() => rmSync(folder, { recursive: true }));

let opened: Task[] = [];
afterEach(async () => {
  await Promise.all(opened.map((task) => task.close()));
  opened = [];
});

async function load(name: string, content?: string): Promise<Task> {
  if (content !== undefined) writeFileSync(join(folder, name), content);
  const task = await loadTask(`./${name}`, { baseDir: folder, seed: 1 });
  opened.push(task);
  return task;
}

/** A task whose reward has this body; \`response\` and \`problem\` are in scope. */
function withReward(body: string, more = ""): string {
  return `import { defineTask } from "rifft/task";
const problems = ["p0", "p1"].map((id) => ({ id, prompt: { text: id }, answer: "5" }));
export default defineTask({ name: "mine", splits: { train: problems }, ${more}
  async reward(problem, response) { ${body} } });
`;
}

async function grade(task: Task, responses: string[]): Promise<Grade[]> {
  const problem = (await task.problems("train")).at(0);
  return task.grade(responses.map((response) => ({ problem, response })));
}

describe("a task file", () => {
  test("the example loads, and its demonstrations earn the whole reward", async () => {
    const path = join(import.meta.dirname, "..", "..", "examples", "my-task.ts");
    const task = await loadTask(path, { baseDir: folder, seed: 1 });
    opened.push(task);
    const dev = await task.problems("dev");
    const problem = dev.at(0);
    const response = problem.demonstrations?.[0] ?? "";
    const grades = await task.grade([
      { problem, response },
      { problem, response: response.replace(/#### .*/, `#### ${problem.answer}`) },
      { problem, response: "no idea" },
    ]);
    expect(grades.map(({ parts }) => parts)).toEqual([
      { correct: 1, unit: 1 },
      { correct: 1, unit: 0 },
      { correct: 0, unit: 0 },
    ]);
    expect(grades[0].reward).toBeCloseTo(1.2, 12);
  });

  test("TypeScript and JavaScript, with imports of its own", async () => {
    writeFileSync(join(folder, "helper.ts"), "export const twice = (n: number): number => 2 * n;\n");
    const body = `import { twice } from "./helper.ts";
      export default { name: "t", splits: { train: async () => [{ id: "a", prompt: { text: "x" } }] }, reward: (_p, r) => twice(r.length) };`;
    for (const name of ["uses.ts", "uses.mjs", "uses.js"]) {
      expect(await grade(await load(name, body), ["abc"])).toEqual([{ reward: 6, parts: {} }]);
    }
  });

  test.each([
    [
      "syntax.ts",
      "export default {\n  name: 'x',\n  splits: {,\n};\n",
      /syntax\.ts:3:\d+: cannot load the task \(.*Unexpected token/,
    ],
    [
      "throws.ts",
      "const a = 1;\nthrow new RangeError('no luck');\n",
      /throws\.ts:2:\d+: cannot load the task \(RangeError: no luck\)/,
    ],
    ["imports.ts", "import './not-there.ts';\nexport default {};\n", /imports\.ts.*cannot load the task \(.*not-there/],
    ["nothing.ts", "export const x = 1;\n", /nothing\.ts: expected a task as the default export/],
    [
      "unrewarded.ts",
      "export default { name: 'x', splits: { train: [] } };\n",
      /unrewarded\.ts: expected a `reward`, or a `grading`.*found neither/,
    ],
    [
      "unsplit.ts",
      "export default { name: 'x', splits: {}, reward() {} };\n",
      /unsplit\.ts: `splits`: expected at least one of train, dev, test/,
    ],
    [
      "misspelt.ts",
      "export default { name: 'x', splits: { trian: [] }, reward() {} };\n",
      /misspelt\.ts: unknown key `splits\.trian` \(did you mean `train`\?\)/,
    ],
    [
      "extra.ts",
      "export default { name: 'x', splits: { train: [] }, reward() {}, wieghts: {} };\n",
      /extra\.ts: unknown key `wieghts` \(did you mean `weights`\?\)/,
    ],
  ])("%s is refused with its place", async (name, content, message) => {
    await expect(load(name, content)).rejects.toThrow(
      expect.objectContaining({ name: "UserError", message: expect.stringMatching(message) }),
    );
  });
});

describe("a reward of a task file", () => {
  test("that never returns costs its own sample only, even in a synchronous loop", async () => {
    const task = await load(
      "loops.ts",
      withReward(
        "while (response === 'loop'); if (response === 'wait') await new Promise(() => {}); return 1;",
        "deadline: 1,",
      ),
    );
    const responses = ["a", "loop", "b", "wait", "c", "d", "loop", "e"];
    const grades = await grade(task, responses);
    for (const [i, { reward, error }] of grades.entries()) {
      const stuck = responses[i].length > 1;
      expect([responses[i], reward]).toEqual([responses[i], stuck ? 0 : 1]);
      expect(error).toBe(
        stuck
          ? `problem p0, response "${responses[i]}": the reward passed its deadline of 1 s (the task's \`deadline\`)`
          : undefined,
      );
    }
    expect((await grade(task, ["after"]))[0].reward).toBe(1);
  });

  test("that throws is named with its line; the thread goes on", async () => {
    const task = await load(
      "throws-in-reward.ts",
      withReward(
        "if (response === 'bad') throw new TypeError('oh no'); return { a: 1, b: 2 };",
        "weights: { b: 0.5 },",
      ),
    );
    const [bad, good] = await grade(task, ["bad", "good"]);
    expect(bad.error).toMatch(
      /^problem p0, response "bad": the reward threw TypeError: oh no \(.*throws-in-reward\.ts:4:\d+\)$/,
    );
    expect(good).toEqual({ reward: 2, parts: { a: 1, b: 2 } });
  });

  test("that ends or crashes its thread, or leaves something behind that does", async () => {
    const body = `if (response === 'exit') process.exit(3);
      if (response === 'later') { setTimeout(() => { throw new Error('stray'); }, 1); await new Promise((r) => setTimeout(r, 50)); }
      return 1;`;
    const task = await load("crashes.ts", withReward(body));
    const [exit, later, fine] = await grade(task, ["exit", "later", "fine"]);
    expect(exit.error).toMatch(/response "exit": the reward ended its thread/);
    expect(later.error).toMatch(/response "later": the reward ended its thread \(stray\)/);
    expect(fine).toEqual({ reward: 1, parts: {} });
  });

  test("may print, to standard error; one that prints without end is stopped", async () => {
    const written: string[] = [];
    const spy = vi.spyOn(process.stderr, "write").mockImplementation((text) => written.push(String(text)) > 0);
    try {
      const body =
        "console.log('graded', response); while (response === 'print') console.log('x'.repeat(1000)); return 1;";
      const task = await load("prints.ts", withReward(body, "deadline: 60,"));
      const [print, fine] = await grade(task, ["print", "fine"]);
      expect(print.error).toMatch(/response "print": the reward printed more than 20000 characters/);
      expect(fine.reward).toBe(1);
      expect(written).toContain("graded fine\n");
      expect(written.join("").length).toBeLessThan(25_000);
    } finally {
      spy.mockRestore();
    }
  }, 30_000);

  test("that takes all memory is stopped", async () => {
    const body = "const all = []; while (response === 'eat') all.push(new Array(100000).fill(all.length)); return 1;";
    const task = await load("eats.ts", withReward(body, "deadline: 60,"));
    const [eat, fine] = await grade(task, ["eat", "fine"]);
    expect(eat.error).toMatch(/response "eat": the reward ended its thread \(.*memory/);
    expect(fine.reward).toBe(1);
  }, 60_000);

  test("gets the problem with its data, which must be plain", async () => {
    const body = `import { defineTask } from "rifft/task";
      const problems = [{ n: 7 }, { n: () => 7 }].map((data, i) => ({ id: String(i), prompt: { text: "x" }, data }));
      export default defineTask({ name: "mine", splits: { train: problems }, reward: (problem) => problem.data.n });`;
    const task = await load("data.ts", body);
    const train = await task.problems("train");
    const grades = await task.grade([0, 1].map((i) => ({ problem: train.at(i), response: "r" })));
    expect(grades[0]).toEqual({ reward: 7, parts: {} });
    expect(grades[1].error).toMatch(/^problem 1, response "r": the problem's data must be plain data/);
  });
});
