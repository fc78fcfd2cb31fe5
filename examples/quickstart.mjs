/**
 * A tiny language model learns grade-school word problems, from scratch, on two cores:
 *
 *   npm run quickstart                  (or: node examples/quickstart.mjs)
 *   npm run quickstart -- --seed 1      other demonstrations, other weights
 *   npm run quickstart -- --rival       also what SFT on the right demonstrations alone would give
 *   npm run quickstart -- --recipe FILE another recipe of two stages, the first SFT
 *
 * 1. SFT on demonstrations of which more than half are hasty: they leave out the last step. The model learns the habit.
 * 2. GRPO: the model tries by itself, a checker says whether the answer is right. The habit goes.
 * 3. The control: SFT continued on the same demonstrations, for at least as long. It stays.
 */
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import pc from "picocolors";
import {
  createLocalEngine,
  createProgress,
  evaluate,
  gradingSettings,
  loadTask,
  modelFolder,
  readRecipe,
  reportOf,
  takeProblems,
  train,
  UserError,
} from "rifft";

/** Held-out problems on which everything is measured, at most. */
const HELD_OUT = 1000;
const width = Math.min(process.stdout.columns ?? 80, 80);

const interrupt = stopOnInterrupt();

try {
  const { file, seed, rival } = readArguments();
  const recipe = readRecipe(file, [`seed=${seed}`]);
  const [sft, grpo] = recipe.stages;
  const time = new Date().toISOString().slice(0, 19).replace("T", "-").replaceAll(":", "");
  const folder = join("runs", `quickstart-${time}-seed${seed}`);

  heading("SFT on flawed demonstrations");
  const warmup = await trainStage(recipe, sft, "base", join(folder, "sft"));
  const before = await solve(recipe, "after SFT", warmup);

  heading("GRPO: only the answer is checked");
  const reinforced = await trainStage(recipe, grpo, warmup.run, join(folder, "grpo"));
  const after = await solve(recipe, "after GRPO", reinforced);

  heading("the control: SFT continued");
  const continued = await trainStage(recipe, sft, warmup.run, join(folder, "control"));
  const control = await solve(recipe, "control: more SFT", continued);

  const rows = [before, after, control];
  if (rival) {
    heading("the rival: SFT on the accepted demonstrations alone");
    const [filtered] = readRecipe(file, [`seed=${seed}`, "sft.accepted=true"]).stages;
    rows.push(await solve(recipe, "rival", await trainStage(recipe, filtered, "base", join(folder, "rival"))));
  }

  heading("held-out problems solved, with Wilson intervals");
  printTable(rows);
  heading("three of them");
  printSolutions(before, after);
  heading("what next");
  printNext(relative("", folder));
} catch (error) {
  if (!(error instanceof UserError)) throw error;
  console.error(`${interrupt.aborted ? "" : "error: "}${error.message}`);
  process.exitCode = interrupt.aborted ? 130 : 1;
}

/** Runs one stage of the recipe, from the weights that `from` names, in a run folder of its own. */
async function trainStage(recipe, stage, from, run) {
  const alone = { ...recipe, stages: [{ ...stage, from, name: `1-${stage.method}` }] };
  const progress = createProgress(process.stderr);
  const result = await train(alone, { run, progress, signal: interrupt });
  if (!result.complete) throw new UserError(`stopped; \`npm run quickstart\` starts anew (${run} is kept)`);
  return result;
}

/** Has a trained model solve the held-out problems, taking its most probable token each time. */
async function solve(recipe, label, { run, engineSeconds }) {
  const task = await loadTask(recipe.task, { baseDir: recipe.baseDir, seed: recipe.seed });
  const engine = createLocalEngine();
  try {
    const from = { dir: await modelFolder(run), optimizer: false };
    const model = await engine.create({ base: recipe.model, train: "full", vocabulary: task.vocabulary, from });
    const problems = await takeProblems(task, "test", HELD_OUT);
    const samples = await evaluate({
      model,
      tokenizer: model.tokenizer,
      task,
      problems,
      maxTokens: 48,
      temperature: 0,
    });
    const { accuracy, interval } = reportOf({ ...gradingSettings(task), n: 1 }, samples);
    console.log(`${label}: ${share(accuracy)} of ${problems.length} held-out problems solved`);
    return { accuracy, interval, label, samples, seconds: engineSeconds, problem: (i) => problems[i] };
  } finally {
    await engine.close();
    await task.close();
  }
}

function printTable(rows) {
  const lines = rows.map(({ label, accuracy, interval, seconds }) => {
    const range = `[${percent(interval.low)}, ${percent(interval.high)}]`;
    return [label, share(accuracy), range, `${Math.round(seconds)} s`];
  });
  const table = [["", "solved", "95 %", "training"], ...lines];
  const widths = table[0].map((_, column) => Math.max(...table.map((line) => line[column].length)));
  for (const [i, line] of table.entries()) {
    const cells = line.map((cell, column) => (column === 0 ? cell.padEnd(widths[0]) : cell.padStart(widths[column])));
    console.log(i === 2 ? pc.bold(cells.join("  ")) : cells.join("  "));
  }
}

/** Three problems that the model learnt to solve, or the first three where there are fewer. */
function printSolutions(before, after) {
  const learnt = before.samples.map((_, i) => i).filter((i) => !before.samples[i].solved && after.samples[i].solved);
  for (const i of learnt.length < 3 ? [0, 1, 2] : learnt.slice(0, 3)) {
    const problem = before.problem(i);
    say(problem.prompt.text.trim());
    for (const { label, samples } of [before, after]) {
      const { text, solved } = samples[i];
      const verdict = solved ? pc.green("right") : pc.red(`wrong, it is ${problem.answer}`);
      console.log(`  ${label}: ${verdict}`);
      console.log(pc.dim(text.replace(/^/gm, "    ")));
    }
    console.log();
  }
}

function printNext(folder) {
  const commands = {
    "every sample that GRPO learnt from, and what it cost": `${join(folder, "grpo", "rollouts")}, ${join(folder, "grpo", "metrics.jsonl")}`,
    "the model as an ordinary Hugging Face folder": `node bin/rifft export --run ${join(folder, "grpo")} --format hf --out ${join(folder, "export")}`,
    "how it does when it samples instead of taking the most probable token": `node bin/rifft eval --model ${join(folder, "grpo")} --temperature 1`,
    "other settings": "node bin/rifft train recipes/quickstart.toml --set grpo.samples=8 --set seed=1",
    "a task of your own": "docs/tasks.md",
    "a real model": "README.md, A short tour",
  };
  for (const [what, how] of Object.entries(commands)) console.log(`${what}:\n  ${how}`);
}

function readArguments() {
  const options = {
    recipe: { type: "string", default: fileURLToPath(new URL("../recipes/quickstart.toml", import.meta.url)) },
    seed: { type: "string", default: "0" },
    rival: { type: "boolean", default: false },
  };
  try {
    const { recipe: file, seed, rival } = parseArgs({ options }).values;
    if (!/^\d{1,9}$/.test(seed)) throw new Error(`--seed: expected a whole number, found ${seed}`);
    return { file, seed: Number(seed), rival };
  } catch (error) {
    throw new UserError(`${error.message.split(". ")[0]} (as in: npm run quickstart -- --seed 1 --rival)`);
  }
}

/** Ctrl-C ends a stage after the step in progress; a second one stops at once. */
function stopOnInterrupt() {
  const controller = new AbortController();
  let first = 0;
  process.on("SIGINT", () => {
    if (!controller.signal.aborted) {
      first = Date.now();
      controller.abort();
      console.error("stopping after this step; Ctrl-C again stops at once");
      // npm hands on the signal that the terminal has sent already: that is not a second Ctrl-C.
    } else if (Date.now() - first > 500) process.exit(130);
  });
  return controller.signal;
}

function heading(text) {
  console.log(`\n${pc.bold(`== ${text}`)}`);
}

/** Prints a text in lines that fit. */
function say(text) {
  console.log(text.replace(new RegExp(`(.{1,${Math.max(20, width - 1)}})(?: +|$)`, "g"), "$1\n").trimEnd());
}

function percent(fraction) {
  return (100 * fraction).toFixed(1);
}

function share(fraction) {
  return `${percent(fraction)} %`;
}
