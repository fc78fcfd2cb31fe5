import { z } from "zod";
import { hashKey, uniform } from "../engine/random.ts";
import { UserError } from "../errors.ts";
import { SCHEDULES } from "../rollout/mcts.ts";
import { HttpProcessReward, type ProcessReward, processRewardSettings } from "../rollout/process-reward.ts";
import {
  harvest,
  promptQuestion,
  type PromptQuestion,
  promptSearch,
  type PromptTree,
  type Solution,
} from "../rollout/prompt-search.ts";
import { gradeResponse, markedStrategy, outputText, stateAnswer } from "../task/grading.ts";
import { findLeaks } from "../task/leaks.ts";
import { questionText, questionWithOptions } from "../task/questions.ts";
import { solved } from "../task/solved.ts";
import type { Grading, Problem } from "../task/types.ts";
import { layoutOf, recordOf, recordProblem, type TaggedRecord } from "./records.ts";
import { plainSteps, recordFault, type RecordStep } from "./rftt-merge.ts";
import { programSteps } from "./rftt-program.ts";
import { type Selection, selectPaths, SORT_KEYS } from "./rftt-select.ts";
import { affirmations, verifications } from "./rftt-verify.ts";
import { sftRowLength } from "./sft.ts";
import type { DataStage, Step } from "./stage.ts";

/** Defaults are those of RFTT's released search and selection (arXiv 2502.13389). */
export const rfttDataSettings = z
  .strictObject({
    /** Questions a step, which is what a resumed run repeats at most. */
    prompts: z.int().positive().default(8),
    /** Rollouts a question. */
    rollouts: z.int().positive().default(16),
    /** Longest path in steps. */
    maxDepth: z.int().positive().default(15),
    /** Exploration weight, and how it changes over the rollouts. */
    c: z.number().min(0).default(2),
    exploration: z.enum(SCHEDULES).default("const"),
    temperature: z.number().positive().default(0.7),
    /** New tokens of each function's text. */
    maxTokens: z
      .strictObject({
        clarify: z.int().positive().default(512),
        analysis: z.int().positive().default(512),
        subquestion: z.int().positive().default(256),
        next_step: z.int().positive().default(512),
        direct_answer: z.int().positive().default(4096),
      })
      .prefault({}),
    /** Direct answers of more sentences or paragraphs are harvested, and never visited. */
    longAnswer: z.int().positive().default(4),
    /** Rollouts of one question in flight at once; 1 is the sequential search. */
    inFlight: z.int().positive().default(1),
    /** Edges of the tree between the ends of a right and a wrong path at most. */
    maxTreeDistance: z.int().min(2).default(3),
    /** What paths are ordered by. */
    order: z
      .array(z.enum(SORT_KEYS))
      .min(1)
      .default([...SORT_KEYS]),
    /** A server that scores steps. */
    processReward: processRewardSettings.optional(),
    /** Texts that are tried for a `verify`, and their new tokens. */
    verifications: z.int().positive().default(4),
    verifyTokens: z.int().positive().default(256),
    /** Share of plain paths to which a `verify` that affirms is added, and of a program's records that hold one in place of a mistake. */
    affirm: z.number().min(0).max(1).default(0.3),
    /** Where fewer merged records survive, a program makes those that are missing of gold chains of thought. */
    merged: z.int().min(0).default(0),
    /** Files of questions that are evaluated later, beside the task's own dev and test splits: a question that occurs there is left out. */
    evaluated: z.array(z.string().min(1)).default([]),
  })
  .refine(({ order, processReward }) => processReward !== undefined || order.join() !== "prm", {
    path: ["order"],
    error: 'order = ["prm"] needs `processReward`: without it all paths are alike',
  })
  .refine(({ order, processReward }) => processReward === undefined || order.includes("prm"), {
    path: ["processReward"],
    error:
      '`order` has no "prm", so that the scores would count for nothing; add "prm" to it, or leave `processReward` out',
  });
export type RfttDataSettings = z.infer<typeof rfttDataSettings>;

/** What became of questions, by name: numbers that are added up over steps. */
type Yield = Record<string, number>;

/**
 * Warm-up data for functional tokens (RFTT, arXiv 2502.13389, phase 1): the model searches solutions by prompts, a right and a wrong path that
 * begin alike are merged into one that errs, notices and corrects itself, and right paths stand as they are. Trains nothing: it writes records,
 * which `sft` reads.
 */
export async function rfttData(stage: DataStage, settings: RfttDataSettings): Promise<void> {
  const { grading, programs, name } = stage.task;
  if (grading === undefined || programs) {
    throw new UserError(
      `rftt-data needs a task whose answers are texts that are compared with a gold; ${name} ${programs ? "grades programs" : "has a reward of its own"}`,
    );
  }
  if (settings.merged > 0 && stage.source.size === Infinity) {
    throw new UserError(
      `\`merged\`: a program takes gold chains from a training split with an end, and ${name} makes its problems without one; take a task of a file, or leave \`merged\` out`,
    );
  }
  const prm = settings.processReward && new HttpProcessReward(settings.processReward);
  const evaluated = await stage.evaluatedQuestions(settings.evaluated);

  for await (const step of stage.steps()) {
    const drawn = step.problems(settings.prompts);
    const leaked = leakedOf(evaluated, drawn);
    const problems = drawn.filter(({ id }) => !leaked.has(id));

    // 1. Search, and take every solution.
    const questions = problems.map((problem, q) => questionOf(stage, step, problem, grading, q));
    const { trees, forest } = await step.time("sample", () =>
      promptSearch(stage.model, questions, { ...settings, schedule: settings.exploration }, async (answers) => {
        const items = answers.map(({ question, answer }) => ({
          problem: problems[question],
          response: stateAnswer(markedStrategy(grading), answer),
        }));
        return (await step.grade(items)).map(solved);
      }),
    );
    step.keep(forest);
    const solutions = trees.map(harvest);
    if (prm !== undefined) await step.time("score", () => score(prm, problems, solutions));

    // 2. Choose paths, have them compared and confirmed, and merge.
    const chosen = solutions.map((own) => selectPaths(own, settings));
    const { records, rejected } = await step.time("sample", () =>
      write(stage, step, problems, chosen, settings, grading),
    );
    stage.storeRecords(String(step.index).padStart(6, "0"), records);
    step.log({ ...yieldOf(trees, solutions, chosen), ...kindsOf(records), leaked: leaked.size, ...rejected });
  }

  // 3. Complete the set by program, and say what came of it.
  if (!stage.over) return;
  const total = yieldIn(sum(stage.logged()));
  const missing = Math.max(0, settings.merged - (total.merged ?? 0));
  const made = programRecords(stage, missing, settings, grading, evaluated);
  stage.storeRecords("program", made.records);
  const table = { ...total, ...made.rejected, program: made.records.length };
  stage.storeYield(table);
  stage.note(yieldTable(table));
  if (made.records.length < missing) {
    stage.note(
      `records made by program: ${made.records.length} of ${missing}; the other chains hold no calculation that a program can plant a mistake in`,
    );
  }
}

/** The ids of questions that are evaluated too, word for word. */
const leakedOf = (evaluated: Problem[], problems: Problem[]): Set<string> =>
  new Set(findLeaks(evaluated, problems).flatMap(({ problem, exact }) => (exact ? problem : [])));

function questionOf(stage: DataStage, step: Step, problem: Problem, grading: Grading, q: number): PromptQuestion {
  const key = step.key(problem);
  const walk = hashKey(`${key}/walk`);
  return {
    ...promptQuestion(problem, grading),
    id: `${stage.name}/${step.index}/${q}`,
    key,
    random: (rollout, depth) => uniform(walk, rollout, depth),
  };
}

async function score(prm: ProcessReward, problems: Problem[], solutions: Solution[][]): Promise<void> {
  const all = solutions.flatMap((own, q) =>
    own.map((solution) => ({ question: questionWithOptions(problems[q]), solution })),
  );
  const scores = await prm.score(all.map(({ question, solution: { steps } }) => ({ question, steps })));
  all.forEach(({ solution }, i) => (solution.scores = scores[i]));
}

/** Records, and why others were not made. */
class Records {
  readonly records: TaggedRecord[] = [];
  readonly rejected: Yield = {};
  private readonly stage: DataStage;
  private readonly grading: Grading;

  constructor(stage: DataStage, grading: Grading) {
    this.stage = stage;
    this.grading = grading;
  }

  reject(reason: string): void {
    const key = `rejected: ${reason}`;
    this.rejected[key] = (this.rejected[key] ?? 0) + 1;
  }

  add(problem: Problem, kind: TaggedRecord["kind"], steps: RecordStep[]): void {
    const { tokenizer, model } = this.stage;
    const layout = layoutOf(tokenizer);
    const fault = recordFault(steps, (text) => gradeResponse(problem, text, this.grading).strict.equal);
    if (fault !== undefined) return this.reject(`${kind}: ${fault}`);
    const record = recordOf({ id: problem.id, problem: questionText(problem), kind }, steps, layout);
    if (sftRowLength(tokenizer, recordProblem(problem, record.steps, layout)) > model.info.maxContext) {
      return this.reject(`${kind}: longer than the context`);
    }
    this.records.push(record);
  }
}

/** The records of a step's questions. */
async function write(
  stage: DataStage,
  step: Step,
  problems: Problem[],
  chosen: Selection[],
  settings: RfttDataSettings,
  grading: Grading,
): Promise<Records> {
  const made = new Records(stage, grading);
  const subjects = problems.map((problem, q) => ({
    problem,
    question: questionWithOptions(problem),
    chat: "messages" in problem.prompt,
    key: step.key(problem),
    chosen: chosen[q],
  }));
  const merged = await verifications(stage.model, subjects, settings, grading);
  const affirmed = await affirmations(stage.model, subjects, settings, grading);
  subjects.forEach(({ problem, chosen: { missing, plain } }, q) => {
    if (missing !== undefined) made.reject(missing);
    const found = merged[q];
    if (found?.fault !== undefined) made.reject(found.fault);
    if (found?.steps !== undefined) made.add(problem, "merged", found.steps);
    plain.forEach((solution, i) => {
      const check = affirmed[q][i];
      if (check?.fault !== undefined) made.reject(check.fault);
      made.add(problem, "plain", plainSteps(solution, outputText(grading, solution.answer ?? ""), check?.text));
    });
  });
  return made;
}

/** Records that a program makes of gold chains of thought: a share `affirm` of them with a check that holds, the others with a planted mistake. */
function programRecords(
  stage: DataStage,
  missing: number,
  settings: RfttDataSettings,
  grading: Grading,
  evaluated: Problem[],
): Records {
  const { source, seed, name } = stage;
  const made = new Records(stage, grading);
  if (missing === 0) return made;
  const problems = Array.from({ length: source.size }, (_, i) => source.at(i));
  const leaked = leakedOf(evaluated, problems);
  for (const problem of problems) {
    const count = made.records.length;
    if (count >= missing) break;
    const chain = problem.demonstrations?.[0];
    if (chain === undefined || problem.answer === undefined || leaked.has(problem.id)) continue;
    // Spread evenly, so that however many there are the share is kept.
    const planted = Math.round((count + 1) * settings.affirm) === Math.round(count * settings.affirm);
    const key = `${seed}/${name}/program/${problem.id}`;
    const steps = programSteps(chain, outputText(grading, problem.answer), { key, planted });
    if (steps !== undefined) made.add(problem, "program", steps);
  }
  return made;
}

function yieldOf(trees: PromptTree[], solutions: Solution[][], chosen: Selection[]): Yield {
  const all = solutions.flat();
  return {
    questions: trees.length,
    ...sum(trees.map(({ counts }) => ({ ...counts }))),
    solutions: all.length,
    answered: all.filter(({ answer }) => answer !== undefined).length,
    right: all.filter(({ right }) => right).length,
    wrong: all.filter(({ right, answer }) => !right && answer !== undefined).length,
    solvedQuestions: solutions.filter((own) => own.some(({ right }) => right)).length,
    pairs: chosen.filter(({ pair }) => pair !== undefined).length,
  };
}

const kindsOf = (records: TaggedRecord[]): Yield => ({
  merged: records.filter(({ kind }) => kind === "merged").length,
  plain: records.filter(({ kind }) => kind === "plain").length,
});

function sum(counts: readonly Yield[]): Yield {
  const total: Yield = {};
  for (const one of counts) {
    for (const [name, count] of Object.entries(one)) total[name] = (total[name] ?? 0) + count;
  }
  return total;
}

/** The rows of the yield table in their order, and what they are called. */
const ROWS = {
  questions: "questions searched",
  leaked: "questions left out: they are evaluated",
  texts: "texts written",
  cut: "  of them cut off at the token limit",
  empty: "  left out: nothing whole",
  tagged: "  left out: they hold a tag",
  overlong: "texts not asked for: the prompt fills the context",
  solutions: "solutions",
  answered: "  that state an answer",
  right: "  right",
  wrong: "  wrong",
  solvedQuestions: "questions with a right solution",
  pairs: "right and wrong pairs",
  merged: "merged records",
  plain: "plain records",
  program: "records made by program",
};

/** What of a stage's metrics belongs to its yield; the rest are counts of the engine. */
const yieldIn = (metrics: Yield): Yield =>
  Object.fromEntries(Object.entries(metrics).filter(([key]) => key in ROWS || key.startsWith("rejected: ")));

/** The yield as a table: a name and a number a line, and a line for each reason why a record was not made. */
export function yieldTable(total: Yield): string {
  const rows = Object.entries(ROWS).map(([key, name]) => [name, total[key] ?? 0] as const);
  const reasons = Object.entries(total).filter(([key]) => key.startsWith("rejected: "));
  const lines = [...rows, ...reasons].map(([name, count]) => `  ${name.padEnd(52)} ${String(count).padStart(8)}`);
  return ["warm-up data:", ...lines].join("\n");
}
