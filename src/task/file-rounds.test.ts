import { mkdtempSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { loadTask } from "./load.ts";

const folder = mkdtempSync(join(realpathSync(tmpdir()), "rifft-rounds-"));
afterAll(() => rmSync(folder, { recursive: true }));
const problem = { id: "p0", prompt: { text: "p0" } };

/** The rounds of a task file, as it is loaded. */
async function roundsOf(name: string, rounds: string) {
  writeFileSync(
    join(folder, name),
    `import { defineTask } from "rifft/task";
export default defineTask({ name: "mine", splits: { train: [{ id: "p0", prompt: { text: "p0" } }] }, reward: () => 1, rounds: ${rounds} });
`,
  );
  const task = await loadTask(`./${name}`, { baseDir: folder, seed: 1 });
  await task.close();
  return task.rounds;
}

const fine = `prompt: (problem, round, rounds, progress) => ({ text: [problem.id, round, rounds, progress ?? "none"].join(" ") }),
  progress: (response) => response.includes(">") ? response.split(">").at(-1) : undefined, final: (response) => response.includes("!")`;

describe("rounds of a task file", () => {
  test("word prompts, hand on progress, tell the end", async () => {
    const rounds = await roundsOf("fine.ts", `{ most: 4, ${fine} }`);
    expect(rounds?.most).toBe(4);
    expect(rounds?.prompt(problem, 2, 3, "x")).toEqual({ text: "p0 2 3 x" });
    expect(rounds?.progress("a > b > c")).toBe(" c");
    expect(rounds?.progress("a")).toBeUndefined();
    expect(rounds?.final("a!")).toBe(true);
    expect(rounds?.done).toBeUndefined();
    expect(rounds?.demonstrate).toBeUndefined();
  });

  test("what a function returns is looked into; one that throws names the place", async () => {
    const wrong = await roundsOf(
      "wrong.ts",
      `{ prompt: (problem, round) => round === 1 ? "p" : { messages: [{ role: "bot", content: 1 }] }, progress: () => 7,
         final: () => { throw new TypeError("no end") }, done: () => -1, demonstrate: () => [] }`,
    );
    expect(() => wrong?.prompt(problem, 1, 3)).toThrow(
      /wrong\.ts: rounds\.prompt of problem p0, round 1 of 3: expected \{ messages \} or \{ text \}, it returned "p"/,
    );
    expect(() => wrong?.prompt(problem, 2, 3)).toThrow(/round 2 of 3: .*it returned \{"messages"/);
    expect(() => wrong?.progress("x")).toThrow(
      /rounds\.progress of the response "x": expected a text or undefined, it returned 7/,
    );
    expect(() => wrong?.final("x")).toThrow(
      /rounds\.final of the response "x": it threw TypeError: no end \(.*wrong\.ts/,
    );
    expect(() => wrong?.done?.(problem, "x")).toThrow(
      /rounds\.done of problem p0, of the response "x": expected a number from 0, or undefined, it returned -1/,
    );
    expect(() => wrong?.demonstrate?.(problem, 3)).toThrow(/rounds\.demonstrate of problem p0/);
  });

  test("a key that nobody knows, and a function that is none, are refused", async () => {
    await expect(roundsOf("key.ts", `{ ${fine}, finale: () => true }`)).rejects.toThrow(/finale/);
    await expect(roundsOf("none.ts", `{ ${fine.replace(/final:.*/, "final: true")} }`)).rejects.toThrow(
      /rounds\.final.*expected a function/,
    );
  });
});
