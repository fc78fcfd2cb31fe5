import { z } from "zod";
import type { HeadSpec } from "../engine/types.ts";
import { type Method as MethodEntry, methods as entries } from "../method/index.ts";
import type { DataStage } from "../method/stage.ts";
import type { Tokenizer } from "../model/types.ts";
import type { Problem, Task } from "../task/types.ts";
import { parseStrict } from "../strict.ts";

/** A method with the settings that a recipe gave it. */
export interface ConfiguredMethod {
  /** Complete: defaults written out. */
  settings: Record<string, unknown>;
  /** Peak learning rate. */
  lr: number;
  problemsPerStep: number;
  /** Heads of the policy. */
  heads: HeadSpec[];
  /** Heads of the second model; absent where the method trains none. */
  criticHeads?: HeadSpec[];
  /** Whether evaluations inside the run say something about it. */
  trainsPolicy: boolean;
  /** Files that it reads. */
  files: string[];
  /** Whether it asks in rounds, which have a prompt of their own. */
  inRounds: boolean;
  /** Throws a UserError where a task cannot be trained on with these settings. */
  check(task: Task): void;
  /** Tokens of context that a problem needs at least. */
  rowLength(tokenizer: Tokenizer, problem: Problem, task: Task): number;
  /** Settings that make rows shorter. */
  shortens: string[];
  /** What it logs that says how good the weights are. */
  quality: Record<string, "higher" | "lower">;
  /** Its mark of generated tokens is kept at the stage's end. */
  markAtEnd: boolean;
  run(stage: DataStage): Promise<void>;
}

interface Method {
  /** The keys of its settings. */
  keys: string[];
  /** Checks a stage's own settings. */
  configure(raw: Record<string, unknown>, source: string, path: PropertyKey[]): ConfiguredMethod;
}

function method<Settings extends z.ZodObject>(entry: MethodEntry<Settings>): Method {
  return {
    keys: Object.keys(entry.settings.shape),
    configure(raw, source, path) {
      const settings = parseStrict(entry.settings, raw, source, path);
      const { policy = [], critic } = entry.heads?.(settings) ?? {};
      return {
        settings: { ...settings },
        // A method that trains nothing has none.
        lr: z.number().default(0).parse(settings.lr),
        problemsPerStep: entry.problemsPerStep(settings),
        heads: policy,
        criticHeads: critic,
        trainsPolicy: entry.trainsPolicy !== false,
        files: entry.files?.(settings) ?? [],
        inRounds: entry.inRounds?.(settings) ?? false,
        check: (task) => entry.check?.(settings, task),
        rowLength: (tokenizer, problem, task) => entry.rowLength(tokenizer, problem, settings, task),
        shortens: entry.shortens ?? [],
        quality: entry.quality,
        markAtEnd: entry.markAtEnd === true || !entry.generates,
        run: (stage) => entry.run(stage, settings),
      };
    },
  };
}

/** The methods that a recipe can name. */
export const methods: Record<string, Method> = {
  sft: method(entries.sft),
  grpo: method(entries.grpo),
  "dr-grpo": method(entries["dr-grpo"]),
  dapo: method(entries.dapo),
  gspo: method(entries.gspo),
  cispo: method(entries.cispo),
  rloo: method(entries.rloo),
  "reinforce++": method(entries["reinforce++"]),
  reinforce: method(entries.reinforce),
  motif: method(entries.motif),
  reft: method(entries.reft),
  rftt: method(entries.rftt),
  treerl: method(entries.treerl),
  selftrain: method(entries.selftrain),
  "selftrain-online": method(entries["selftrain-online"]),
  rerank: method(entries.rerank),
  "rftt-data": method(entries["rftt-data"]),
};
