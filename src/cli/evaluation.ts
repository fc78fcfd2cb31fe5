import { existsSync, readFileSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import { z } from "zod";
import { nearest, UserError } from "../errors.ts";
import { type ComparedSetting, COMPARED_SETTINGS, type Evaluated } from "../eval/compare.ts";
import type { EvaluationSettings } from "../eval/report.ts";
import { byProblem, type EvaluatedSample, readSamples } from "../eval/samples.ts";
import { isMode } from "../grade/index.ts";
import { recordedSettings } from "../run/evaluation.ts";
import { parseGrading } from "../task/grading.ts";
import type { Grading } from "../task/types.ts";

/** The evaluation that a path stands for. */
export function openEvaluation(path: string): Evaluated {
  const file = samplesFile(path);
  const { samples, cut } = readSamples(file);
  if (cut) process.stderr.write(`${file}: its last line was cut off and is left out\n`);
  return { name: path, settings: recordedSettings(file), samples };
}

/** One with a stage was made inside the run. */
const evaluationLine = z.looseObject({ file: z.string(), stage: z.undefined().optional() });

/** The samples that a path stands for: a file itself, of a folder those of its newest evaluation. */
export function samplesFile(path: string): string {
  if (!existsSync(path)) throw new UserError(`${path} does not exist: expected a samples file or a run folder`);
  if (!statSync(path).isDirectory()) return path;
  const list = join(path, "evals.jsonl");
  const lines = existsSync(list)
    ? readFileSync(list, "utf8")
        .split("\n")
        .filter((line) => line.trim() !== "")
    : [];
  for (const line of lines.reverse()) {
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch {
      // The line that a full disk or a killed process cut off.
      continue;
    }
    const found = evaluationLine.safeParse(value);
    if (found.success && existsSync(join(path, found.data.file))) return join(path, found.data.file);
  }
  throw new UserError(`${path} holds no evaluation: run \`rifft eval --model ${path}\` first, or name a samples file`);
}

/** The samples of a file whose problems have all of theirs, and what they were asked; `notes` say what is left out. */
export function wholeProblems(
  path: string,
  chosen: Partial<Grading> = {},
): { samples: EvaluatedSample[]; settings: EvaluationSettings; notes: string[] } {
  const { samples, cut } = readSamples(path);
  if (samples.length === 0)
    throw new UserError(`${path}: holds no whole sample; expected a file that \`rifft eval\` wrote`);
  const notes = cut ? [`${path}: its last line was cut off and is left out`] : [];
  const settings = settingsFor(path, samples, chosen);
  const groups = byProblem(samples);
  const whole = groups.filter((group) => group.length >= settings.n);
  if (whole.length === 0)
    throw new UserError(`${path}: no problem has its ${settings.n} samples yet; let the evaluation go on`);
  if (whole.length < groups.length) {
    const some = groups.length - whole.length;
    notes.push(
      `${path}: ${some} of ${groups.length} problems lack some of their ${settings.n} samples and are left out`,
    );
  }
  return { samples: whole.flat(), settings, notes };
}

/** What the samples' record says; without one, what the lines themselves show. */
function settingsFor(path: string, samples: EvaluatedSample[], chosen: Partial<Grading>): EvaluationSettings {
  const strategies = [...new Set(samples.flatMap(({ strict }) => strict.strategy ?? []))];
  const published = strategies.find(isMode);
  const settings: EvaluationSettings = recordedSettings(path) ?? {
    task: basename(path, ".jsonl"),
    mode: published ?? (samples.every(({ strict }) => strict.rule === "reward") ? "reward" : "math"),
    strict: published === undefined ? (parseGrading({ strict: strategies }).strict ?? []) : [],
    flexible: ["auto"],
    n: Math.max(...samples.map(({ sample }) => sample)) + 1,
  };
  if (Object.keys(chosen).length === 0 && (settings.mode === "reward" || settings.strict.length > 0)) return settings;
  const { mode, strict, flexible } = settings;
  return {
    ...settings,
    mode: chosen.mode ?? (mode === "reward" ? "math" : mode),
    strict: chosen.strict ?? (strict.length > 0 ? strict : ["auto"]),
    flexible: chosen.flexible ?? (flexible.length > 0 ? flexible : ["auto"]),
  };
}

/** Collects `--allow n temperature`. */
export function comparedSettings(name: string, before: ComparedSetting[] = []): ComparedSetting[] {
  const found = COMPARED_SETTINGS.find((setting) => setting === name);
  if (found !== undefined) return [...before, found];
  const near = nearest(name, COMPARED_SETTINGS);
  const hint = near === undefined ? `expected ${COMPARED_SETTINGS.join(", ")}` : `did you mean ${near}?`;
  throw new UserError(`unknown setting ${JSON.stringify(name)} (${hint})`);
}
