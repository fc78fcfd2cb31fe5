import { z } from "zod";
import { UserError } from "../errors.ts";
import { type Benchmark, parseRow } from "./benchmark.ts";
import type { Question } from "./questions.ts";
import type { Row } from "./read.ts";

const text = z.string().trim().min(1);
/** Files have ids, levels and golds as texts or as numbers (big integers in parquet). */
const label = z.union([text, z.number(), z.bigint()]).transform(String);

const mathRow = z.object({
  problem: text,
  solution: text,
  answer: label,
  subject: text.optional(),
  type: text.optional(),
  level: label.optional(),
  unique_id: label.optional(),
});

/** MATH's schema: `problem`, `solution`, `answer`, `subject` (or `type`), `level` (`3` or `Level 3`), `unique_id`. */
function mathQuestion(name: string) {
  return (row: Row, index: number, split: "train" | "test"): Question => {
    const found = parseRow(mathRow, row, "the texts problem, solution and answer");
    const subject = found.subject ?? found.type;
    const level = found.level?.replace(/^Level /, "");
    return {
      id: found.unique_id ?? `${name}-${split}-${index}`,
      question: found.problem,
      answer: found.answer,
      demonstration: found.solution,
      tags: { ...(level === undefined ? {} : { level }), ...(subject === undefined ? {} : { subject }) },
    };
  };
}

/** MATH (Hendrycks et al. 2021) in the split of Lightman et al. 2023: 12,000 to train on, the 500 of MATH-500 as test. */
export const math: Benchmark = {
  name: "math",
  hub: "nlile/hendrycks-MATH-benchmark",
  form: "math",
  parse: mathQuestion("math"),
};

/** The test half of that split by itself. */
export const math500: Benchmark = {
  name: "math500",
  hub: "HuggingFaceH4/MATH-500",
  form: "math",
  testOnly: true,
  parse: mathQuestion("math500"),
};

const contestRow = z.object({ id: label.optional(), problem: text, answer: label, url: z.string().optional() });

/** A contest without demonstrations. Golds stay as they are written: `025`, `142.0`. */
function contestQuestion(name: string) {
  return (row: Row, index: number): Question => {
    const found = parseRow(contestRow, row, "the texts problem and answer");
    // "https://.../wiki/index.php/2024_AIME_I_Problems/Problem_1"
    const contest = /\/(\d{4}_[^/]+?)(?:_Problems)?\//.exec(found.url ?? "")?.[1].replaceAll("_", " ");
    return {
      id: found.id ?? `${name}-${index}`,
      question: found.problem,
      answer: found.answer,
      ...(contest === undefined ? {} : { tags: { contest } }),
    };
  };
}

/** The 30 problems of AIME 2024. */
export const aime2024: Benchmark = {
  name: "aime2024",
  hub: "HuggingFaceH4/aime_2024",
  folders: ["aime24"],
  files: { test: ["test", "train"] },
  form: "math",
  testOnly: true,
  parse: contestQuestion("aime2024"),
};

/** 83 problems of AMC 12, 2022 and 2023, reworded to integer answers; golds are floats. */
export const amc: Benchmark = {
  name: "amc",
  hub: "AI-MO/aimo-validation-amc",
  folders: ["amc23"],
  files: { test: ["test", "train"] },
  form: "math",
  testOnly: true,
  parse: contestQuestion("amc"),
};

const olympiadRow = z.object({
  id: label.optional(),
  question: text,
  context: z.string().nullish(),
  final_answer: z.union([z.array(label), label]).nullish(),
  unit: z.string().nullish(),
  error: z.union([z.string(), z.number()]).nullish(),
  subject: z.string().nullish(),
  subfield: z.string().nullish(),
  answer_type: z.string().nullish(),
});

/**
 * OlympiadBench (He et al. 2024), open-ended text problems. Several answers make one gold, separated by commas: all are needed.
 * `unit` is part of the gold, so that an answer may leave it out but not have another; `error` is the tolerance.
 */
export const olympiadbench: Benchmark = {
  name: "olympiadbench",
  hub: "Hothan/OlympiadBench",
  files: { test: ["OE_TO_maths_en_COMP", "test", "train"] },
  within: ["OlympiadBench/OE_TO_maths_en_COMP", "OE_TO_maths_en_COMP"],
  form: "math",
  testOnly: true,
  parse(row, index) {
    const found = parseRow(olympiadRow, row, "the text question and the list final_answer");
    const answers = [found.final_answer ?? []].flat();
    if (answers.length === 0) {
      throw new UserError(`${row.place}: no final answer (a proof?): take the open-ended (OE) files of OlympiadBench`);
    }
    const unit = found.unit?.trim();
    const context = found.context?.trim();
    const tags = Object.entries({ subfield: found.subfield, subject: found.subject, type: found.answer_type });
    return {
      id: found.id ?? `olympiadbench-${index}`,
      question: context ? `${context}\n\n${found.question}` : found.question,
      answer: golds(answers, unit),
      ...toleranceOf(found.error),
      tags: Object.fromEntries(tags.flatMap(([tag, value]) => (value ? [[tag, value]] : []))),
    };
  },
};

function golds(answers: string[], unit: string | undefined): string {
  const plain = answers.map((answer) => answer.replace(/^\$([^$]*)\$$/, "$1").trim());
  return unit ? `${plain.join(", ")} ${unit.startsWith("$") ? unit : `\\text{ ${unit}}`}` : plain.join(", ");
}

/** `1e-2`, or one for each answer: then the strictest. */
function toleranceOf(error: string | number | null | undefined): { tolerance?: number } {
  const values = String(error ?? "")
    .split(",")
    .map(Number)
    .filter((value) => value > 0);
  return values.length === 0 ? {} : { tolerance: Math.min(...values) };
}
