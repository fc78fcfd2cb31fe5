import type { z } from "zod";
import type { HeadSpec } from "../engine/types.ts";
import type { Tokenizer } from "../model/types.ts";
import { encodePrompt } from "../task/prompt.ts";
import type { Problem, Task } from "../task/types.ts";
import { FAMILY, groupSettings } from "./family.ts";
import { grpo } from "./grpo.ts";
import { motif, roundsRowLength } from "./motif.ts";
import { checkMotif, motifSettings } from "./motif-settings.ts";
import { reft, reftSettings, VALUE } from "./reft.ts";
import { rerank, rerankSettings, SCORE } from "./rerank.ts";
import { rfttData, rfttDataSettings } from "./rftt-data.ts";
import { onlineSelftrain, onlineSelftrainSettings } from "./selftrain-online.ts";
import { rftt, rfttHeads, rfttSettings } from "./rftt.ts";
import { checkSelftrain, selftrain, selftrainRowLength, selftrainSettings } from "./selftrain.ts";
import { checkSft, sft, sftRowLength, sftSettings, sftLongestRow } from "./sft.ts";
import type { DataStage } from "./stage.ts";
import { treerl, treerlSettings } from "./treerl.ts";

/** A method as a recipe sees it; `S` is its checked settings. */
export interface Method<Settings extends z.ZodObject> {
  name: string;
  settings: Settings;
  /** Whether the policy is sampled from, so that a stage can be measured in generated tokens. */
  generates: boolean;
  /** Training problems that a step takes. */
  problemsPerStep(settings: z.output<Settings>): number;
  /** Heads of the policy, and those of the second model, where it trains one. */
  heads?(settings: z.output<Settings>): { policy: HeadSpec[]; critic?: HeadSpec[] };
  /** False for one that trains no policy: evaluations inside the run pass it over. */
  trainsPolicy?: boolean;
  /** Files that it reads. */
  files?(settings: z.output<Settings>): string[];
  /** Whether it asks in rounds, which have a prompt of their own. */
  inRounds?(settings: z.output<Settings>): boolean;
  /** Before any step: throws a UserError where a task cannot be trained on with these settings. */
  check?(settings: z.output<Settings>, task: Task): void;
  /** Tokens of context that a problem needs at least. */
  rowLength(tokenizer: Tokenizer, problem: Problem, settings: z.output<Settings>, task: Task): number;
  /** Settings that make rows shorter. */
  shortens?: string[];
  /** What it logs that says how good the weights are, and which way is better. */
  quality: Record<string, "higher" | "lower">;
  /** Samples before it trains: its mark of generated tokens is kept at the stage's end. */
  markAtEnd?: boolean;
  run(stage: DataStage, settings: z.output<Settings>): Promise<void>;
}

const method = <Settings extends z.ZodObject>(entry: Method<Settings>) => entry;

const promptAndToken = (tokenizer: Tokenizer, problem: Problem) => encodePrompt(tokenizer, problem).length + 1;

/** GRPO or one of its relatives. */
const groupMethod = (name: keyof typeof FAMILY) =>
  method({
    name,
    settings: groupSettings(FAMILY[name]),
    generates: true,
    problemsPerStep: (settings) => settings.prompts,
    rowLength: promptAndToken,
    quality: { reward: "higher", solveRate: "higher" },
    run: grpo,
  });

/** The methods that a recipe can name. */
export const methods = {
  sft: method({
    name: "sft",
    settings: sftSettings,
    generates: false,
    // Records may be fewer, or more, than problems; a mixture holds each several times.
    problemsPerStep: ({ records, mixture, batch }) => (records === undefined && mixture === undefined ? batch : 1),
    rowLength: (tokenizer, problem, settings, task) =>
      settings.records === undefined
        ? sftLongestRow(tokenizer, problem, settings, task)
        : promptAndToken(tokenizer, problem),
    inRounds: ({ rounds, mixture = [{ rounds }] }) => mixture.some((way) => way.rounds !== undefined),
    check: checkSft,
    quality: { loss: "lower" },
    run: sft,
  }),
  motif: method({
    name: "motif",
    settings: motifSettings,
    generates: true,
    problemsPerStep: (settings) => settings.prompts,
    rowLength: roundsRowLength,
    inRounds: () => true,
    check: checkMotif,
    shortens: ["maxTokens", "progressTokens"],
    quality: { reward: "higher", solveRate: "higher" },
    run: motif,
  }),
  grpo: groupMethod("grpo"),
  "dr-grpo": groupMethod("dr-grpo"),
  dapo: groupMethod("dapo"),
  gspo: groupMethod("gspo"),
  cispo: groupMethod("cispo"),
  rloo: groupMethod("rloo"),
  "reinforce++": groupMethod("reinforce++"),
  reinforce: groupMethod("reinforce"),
  reft: method({
    name: "reft",
    settings: reftSettings,
    generates: true,
    problemsPerStep: (settings) => settings.prompts,
    heads: ({ critic }) => (critic === "separate" ? { policy: [], critic: [VALUE] } : { policy: [VALUE] }),
    rowLength: promptAndToken,
    quality: { reward: "higher", solveRate: "higher" },
    run: reft,
  }),
  rftt: method({
    name: "rftt",
    settings: rfttSettings,
    generates: true,
    problemsPerStep: (settings) => settings.prompts,
    heads: (settings) => ({ policy: rfttHeads(settings) }),
    rowLength: promptAndToken,
    quality: { reward: "higher", solveRate: "higher" },
    run: rftt,
  }),
  treerl: method({
    name: "treerl",
    settings: treerlSettings,
    generates: true,
    problemsPerStep: (settings) => settings.prompts,
    rowLength: promptAndToken,
    quality: { reward: "higher", solveRate: "higher" },
    run: treerl,
  }),
  selftrain: method({
    name: "selftrain",
    settings: selftrainSettings,
    generates: true,
    // A last step of sampling may have fewer.
    problemsPerStep: () => 1,
    rowLength: selftrainRowLength,
    inRounds: ({ rounds }) => rounds !== undefined,
    check: checkSelftrain,
    quality: { loss: "lower" },
    markAtEnd: true,
    run: selftrain,
  }),
  "selftrain-online": method({
    name: "selftrain-online",
    settings: onlineSelftrainSettings,
    generates: true,
    problemsPerStep: (settings) => settings.prompts,
    rowLength: sftRowLength,
    quality: { reward: "higher", solveRate: "higher" },
    run: onlineSelftrain,
  }),
  "rftt-data": method({
    name: "rftt-data",
    settings: rfttDataSettings,
    generates: true,
    problemsPerStep: (settings) => settings.prompts,
    trainsPolicy: false,
    files: ({ evaluated }) => evaluated,
    // A question that is too long is counted, and left.
    rowLength: () => 1,
    quality: {},
    run: rfttData,
  }),
  rerank: method({
    name: "rerank",
    settings: rerankSettings,
    generates: false,
    // Its examples are those of a file.
    problemsPerStep: () => 1,
    heads: () => ({ policy: [SCORE] }),
    trainsPolicy: false,
    files: ({ samples }) => [samples],
    rowLength: promptAndToken,
    quality: { loss: "lower", devLoss: "lower", devAccuracy: "higher", devRerank: "higher" },
    run: rerank,
  }),
};
