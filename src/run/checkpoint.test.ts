import { spawn } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { beforeEach, describe, expect, test } from "vitest";
import { RandomStream } from "../engine/random.ts";
import { UserError } from "../errors.ts";
import {
  latestCheckpoint,
  listCheckpoints,
  modelDir,
  pruneCheckpoints,
  readCheckpoint,
  type RunState,
  writeCheckpoint,
} from "./checkpoint.ts";
import { currentEnvironment } from "./environment.ts";
import { RunFolder } from "./folder.ts";

const stateAt = (step: number): RunState => ({
  stage: 0,
  step,
  totalSteps: step,
  samplingSteps: 0,
  cursor: 8 * step,
  memory: { rewards: 0.1 * step },
  counts: { generated: 100 * step, prefilled: 0, scored: 0, trained: 7 },
  engineSeconds: 0.1 + 0.2,
  atStageStart: { generated: 0, engineSeconds: 0 },
  stageEnds: { "1-sft": "step-00000001" },
  sizes: { metrics: 10 },
});
const nameOf = (step: number) => `step-0000000${step}`;
const saveModel = (text: string) => async (dir: string) => {
  mkdirSync(join(dir, "deep"));
  writeFileSync(join(dir, "weights"), text);
  writeFileSync(join(dir, "deep", "moments"), text.toUpperCase());
};
const intact = (name: string, reason: string) => {
  throw new Error(`${name} should be intact: ${reason}`);
};

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "rifft-checkpoint-"));
});

describe("writeCheckpoint", () => {
  test("what is written is read back, newest first", async () => {
    await writeCheckpoint(dir, nameOf(1), stateAt(1), saveModel("one"));
    await writeCheckpoint(dir, nameOf(2), stateAt(2), saveModel("two"));
    const found = await latestCheckpoint(dir, intact);
    expect(found).toEqual({ name: nameOf(2), path: join(dir, nameOf(2)), state: stateAt(2) });
    expect(readFileSync(join(modelDir(join(dir, nameOf(2))), "deep", "moments"), "utf8")).toBe("TWO");
  });

  test("a failure while the model is saved leaves nothing behind and the one before whole", async () => {
    await writeCheckpoint(dir, nameOf(1), stateAt(1), saveModel("one"));
    const failing = async (target: string) => {
      writeFileSync(join(target, "weights"), "half");
      throw new Error("power failure");
    };
    await expect(writeCheckpoint(dir, nameOf(2), stateAt(2), failing)).rejects.toThrow("power failure");
    expect(readdirSync(dir)).toEqual([nameOf(1)]);
    expect((await latestCheckpoint(dir, intact))?.state).toEqual(stateAt(1));
  });

  test.skipIf(!existsSync("/dev/full"))("a full disk is a UserError, and the one before survives", async () => {
    await writeCheckpoint(dir, nameOf(1), stateAt(1), saveModel("one"));
    const full = async (target: string) => {
      symlinkSync("/dev/full", join(target, "weights"));
      writeFileSync(join(target, "weights"), "does not fit");
    };
    const attempt = writeCheckpoint(dir, nameOf(2), stateAt(2), full);
    await expect(attempt).rejects.toThrow(UserError);
    await expect(attempt).rejects.toThrow(/the disk is full: the checkpoint .*step-00000002/);
    expect((await latestCheckpoint(dir, intact))?.name).toBe(nameOf(1));
    expect(readdirSync(dir)).toEqual([nameOf(1)]);
  });
});

describe("latestCheckpoint", () => {
  const damages: [string, (path: string) => void, RegExp][] = [
    ["a changed byte", (p) => writeFileSync(join(p, "model", "weights"), "twO"), /checksum of model\/weights/],
    ["a truncated file", (p) => truncateSync(join(p, "model", "deep", "moments"), 2), /2 bytes where 3 were written/],
    ["a torn manifest", (p) => truncateSync(join(p, "manifest.json"), 30), /manifest\.json is not readable/],
    ["a changed state", (p) => writeFileSync(join(p, "state.json"), "{}"), /state\.json has 2 bytes/],
  ];
  test.each(damages)("%s is found, and the one before is used", async (_, damage, reason) => {
    await writeCheckpoint(dir, nameOf(1), stateAt(1), saveModel("one"));
    await writeCheckpoint(dir, nameOf(2), stateAt(2), saveModel("two"));
    damage(join(dir, nameOf(2)));
    const told: string[] = [];
    const found = await latestCheckpoint(dir, (name, text) => told.push(`${name}: ${text}`));
    expect(found?.state).toEqual(stateAt(1));
    expect(told).toHaveLength(1);
    expect(told[0]).toMatch(reason);
    expect(told[0]).toContain(nameOf(2));
  });

  test("without any there is none", async () => {
    expect(await latestCheckpoint(join(dir, "nowhere"), intact)).toBeUndefined();
  });
});

test("pruneCheckpoints keeps the newest and the needed, and clears what a killed writer left", async () => {
  for (const step of [1, 2, 3, 4]) await writeCheckpoint(dir, nameOf(step), stateAt(step), saveModel("x"));
  mkdirSync(join(dir, ".writing-step-00000005"));
  pruneCheckpoints(dir, 2, new Set([nameOf(1)]));
  expect(readdirSync(dir).sort()).toEqual([nameOf(1), nameOf(3), nameOf(4)]);
  expect(listCheckpoints(dir)).toEqual([nameOf(1), nameOf(3), nameOf(4)]);
});

test("killed at random moments of writing, there is always an intact checkpoint and its files agree with it", async () => {
  const record = { environment: currentEnvironment(""), baseDir: dir, recipe: {} };
  RunFolder.create(dir, "", record).close();
  const random = new RandomStream("crash");
  const writer = fileURLToPath(new URL("../../test/helpers/checkpoint-writer.ts", import.meta.url));
  let before = 0;
  for (let kill = 0; kill < 15; kill++) {
    const delay = 5 + random.below(200);
    const child = spawn(process.execPath, ["--import", "jiti/register", writer, dir], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    child.stdout.once("data", () => setTimeout(() => child.kill("SIGKILL"), delay));
    const signal = await new Promise((resolve) => child.on("exit", (_, s) => resolve(s)));
    // Any other end is the writer's own complaint about what it found.
    expect(signal).toBe("SIGKILL");
    const found = await latestCheckpoint(join(dir, "checkpoints"), intact);
    if (found === undefined) continue;
    const { totalSteps, sizes } = found.state;
    expect(totalSteps).toBeGreaterThanOrEqual(before);
    before = totalSteps;
    expect(readFileSync(join(modelDir(found.path), "weights")).every((byte) => byte === totalSteps % 251)).toBe(true);
    expect(readFileSync(join(modelDir(found.path), "moments")).every((byte) => byte === totalSteps % 241)).toBe(true);
    const metrics = readFileSync(join(dir, "metrics.jsonl")).subarray(0, sizes.metrics).toString();
    const steps = metrics
      .trimEnd()
      .split("\n")
      .map((line): unknown => JSON.parse(line).step);
    expect(steps).toEqual(Array.from({ length: totalSteps }, (_, i) => i));
  }
  // How many were finished depends on the machine; that some were does not.
  expect(before).toBeGreaterThan(0);
});

test("readCheckpoint says when the state is another version's", async () => {
  const other = { ...stateAt(1), novelty: 1 };
  await writeCheckpoint(dir, nameOf(1), other, saveModel("one"));
  expect(await readCheckpoint(join(dir, nameOf(1)))).toContain("another version");
});
