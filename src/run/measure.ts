import { join } from "node:path";
import type { Model } from "../engine/types.ts";
import { evaluate } from "../eval/evaluate.ts";
import { type EvaluationSettings, reportOf, type EvaluationReport } from "../eval/report.ts";
import type { EvaluatedSample } from "../eval/samples.ts";
import type { ProcessReward } from "../rollout/process-reward.ts";
import type { Problem, Task } from "../task/types.ts";
import { appendLine } from "./disk.ts";
import { EvaluationFile } from "./evaluation.ts";

export interface MeasureOptions {
  /** Where `evals.jsonl` and the samples in `evals/` go. */
  dir: string;
  settings: EvaluationSettings & Required<Pick<EvaluationSettings, "temperature" | "maxTokens" | "seed">>;
  /** Digest of the model. */
  weights: string;
  task: Task;
  problems: Problem[];
  /** The k of pass@k and maj@k. */
  ks?: number[];
  /** Plain samples, beside a search. */
  beside?: EvaluatedSample[];
  /** Opens the model, where samples are missing. */
  withModel: (work: (model: Model) => Promise<void>) => Promise<void>;
  /** Of the line in `evals.jsonl`, beside the report. */
  extra?: () => Promise<object>;
  /** What scores the leaves of a search, made of the model; absent where its value needs nothing. */
  leafScores?: (model: Model) => ProcessReward;
  interrupted?: () => boolean;
  /** Called when it was interrupted, with the answers so far; those of a search in progress are kept in a file of their own. */
  onInterrupted?: (samples: EvaluatedSample[], file: string) => void;
  note?: (text: string) => void;
  /** Called for each new sample: how many there are, of how many, and how many of them are right. */
  onSample?: (progress: { done: number; of: number; right: number }) => void;
}

export interface Measured {
  report: EvaluationReport;
  /** The line of `evals.jsonl` without its time. */
  line: EvaluationReport & { file: string };
  samples: EvaluatedSample[];
}

/** Samples what is not there yet, keeps it, and reports in `evals.jsonl`. Undefined when it was interrupted; the samples so far are kept. */
export async function measure(options: MeasureOptions): Promise<Measured | undefined> {
  const { dir, settings, weights, task, problems } = options;
  const { n, maxTokens, temperature, topK, rounds, search, without, seed } = settings;
  const file = new EvaluationFile(dir, settings, weights, problems);
  try {
    const samples = [...file.kept];
    const total = problems.length * n;
    if (samples.length > 0)
      options.note?.(`${samples.length} of ${total} samples are in ${join(dir, file.file)} already`);
    if (samples.length < total) {
      let partial: EvaluatedSample[] = [];
      let right = samples.filter(({ solved }) => solved).length;
      await options.withModel(async (model) => {
        const difference = file.begin(model.info.plan);
        if (difference !== undefined) {
          options.note?.(
            `this is not where the evaluation began: ${difference}; log-probs may differ in the last digits`,
          );
        }
        const before = { ...model.counts };
        const began = performance.now();
        await evaluate({
          model,
          tokenizer: model.tokenizer,
          task,
          problems,
          maxTokens,
          temperature,
          topK,
          n,
          search,
          without,
          processReward: options.leafScores?.(model),
          rounds,
          seed,
          done: samples.length / n,
          interrupted: options.interrupted,
          onChunk: () => {
            const { generated, prefilled } = model.counts;
            file.spent(samples.length, {
              generated: generated - before.generated,
              prefilled: prefilled - before.prefilled,
              seconds: (performance.now() - began) / 1000,
            });
          },
          onPartial: (some) => (partial = some),
          onSample: (one) => {
            file.append(one);
            samples.push(one);
            right += Number(one.solved);
            options.onSample?.({ done: samples.length, of: total, right });
          },
        });
      });
      if (samples.length < total) {
        if (partial.length > 0) file.keepPartial(partial);
        options.onInterrupted?.([...samples, ...partial], file.file);
        return undefined;
      }
    }
    const report = reportOf(settings, samples, options.ks, { beside: options.beside });
    const line = { ...report, ...(await options.extra?.()), file: file.file };
    appendLine(join(dir, "evals.jsonl"), { at: new Date().toISOString(), ...line });
    return { report, line, samples };
  } finally {
    file.close();
  }
}
