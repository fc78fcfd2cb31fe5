/**
 * Writes checkpoints and JSON lines in an endless loop, until it is killed: the victim of the crash test. Every file's content
 * is a function of the step, so that the test can tell a mixture of two steps.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { latestCheckpoint, pruneCheckpoints, type RunState, writeCheckpoint } from "../../src/run/checkpoint.ts";
import { RunFolder } from "../../src/run/folder.ts";

const dir = process.argv[2];
const folder = RunFolder.open(dir);
const found = await latestCheckpoint(folder.checkpoints, (name, reason) => {
  throw new Error(`${name}: ${reason}`);
});
let step = found?.state.totalSteps ?? 0;
folder.cutBack(found?.state.sizes ?? {}, ["1-sft"], 0, step);
process.stdout.write("ready\n");
for (;;) {
  folder.append("metrics", { stage: "1-sft", step, loss: 1 / (step + 1) });
  folder.append("verdicts", { step, text: "v".repeat(step % 50) });
  step++;
  const state: RunState = {
    stage: 0,
    step,
    totalSteps: step,
    samplingSteps: 0,
    cursor: 3 * step,
    memory: {},
    counts: { generated: step, prefilled: 0, scored: 0, trained: 0 },
    engineSeconds: 0,
    atStageStart: { generated: 0, engineSeconds: 0 },
    stageEnds: {},
    sizes: folder.sync(),
  };
  await writeCheckpoint(folder.checkpoints, `step-${String(step).padStart(8, "0")}`, state, async (model) => {
    writeFileSync(join(model, "weights"), Buffer.alloc(200_000, step % 251));
    writeFileSync(join(model, "moments"), Buffer.alloc(400_000, step % 241));
  });
  pruneCheckpoints(folder.checkpoints, 2, new Set());
}
